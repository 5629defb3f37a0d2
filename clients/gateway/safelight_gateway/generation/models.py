"""Models: resolve a caller's id to a served model."""

from collections.abc import Sequence
from contextlib import suppress

from cachetools import TTLCache
from safelight import Model, SafelightError

from safelight_gateway.calls.callers import Callers
from safelight_gateway.errors import GatewayError, from_service
from safelight_gateway.generation.request import CallContext

ANY = "*"
_OWNER = "safelight/"
_KEEP_S, _MAX_CALLERS = 5.0, 1024
_NOBODY = CallContext()


class ModelDirectory:
    """Finds models by name, by `safelight/NAME` and by the operator's aliases.

    Ids are case-insensitive. The list of each caller's models is cached for 5 seconds.
    """

    def __init__(self, callers: Callers, aliases: dict[str, str]) -> None:
        self._callers = callers
        self._aliases = {alias.lower(): name for alias, name in aliases.items()}
        self._lists: TTLCache[str, list[Model]] = TTLCache(_MAX_CALLERS, _KEEP_S)

    async def list(self, context: CallContext = _NOBODY) -> list[Model]:
        """Return the models that the caller may use, the default first.

        Raises:
            GatewayError: the service refuses the token, or the call failed.
        """
        holder = await self._callers.attribute(context)
        with suppress(KeyError):  # `get` looks twice, and a list may expire in between
            return self._lists[holder]
        try:
            async with self._callers.lease(context) as client:
                models = await client.list_models(metadata=context.call_metadata)
        except SafelightError as error:
            raise from_service(error) from error
        if all(model.capabilities is not None for model in models):
            self._lists[holder] = models
        return models

    async def find(self, ids: Sequence[str], context: CallContext = _NOBODY) -> Model:
        """Return the model of the first known id; the default model if there is no id.

        Raises:
            GatewayError: none of the ids is known, or the models could not be listed.
        """
        models = await self.list(context)
        model = self.choose(ids, models)
        if model is None:
            names = ", ".join(model.name for model in models)
            raise GatewayError(
                404, f"model {ids[0]!r} is not served; choose one of: {names}", "MODEL_NOT_FOUND"
            )
        return model

    def choose(self, ids: Sequence[str], models: Sequence[Model]) -> Model | None:
        """Return the model of the first known id among these models; None if no id is known."""
        by_name = {f"{_OWNER}{model.name}".lower(): model for model in models}
        by_name |= {model.name.lower(): model for model in models}
        known = [id_.lower() for id_ in ids if id_]
        if not known:
            return models[0] if models else None
        for id_ in known:
            model = by_name.get(self._aliases.get(id_, id_).lower())
            if model is not None:
                return model
        return by_name.get(self._aliases.get(ANY, "").lower())
