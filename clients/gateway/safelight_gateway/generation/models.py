"""Models: resolve a caller's id to a served model."""

from collections.abc import Sequence

from cachetools import TTLCache
from safelight import AsyncClient, Model

from safelight_gateway.errors import GatewayError

ANY = "*"
_OWNER = "safelight/"
_KEEP_S, _MAX_CALLERS = 5.0, 1024


class ModelDirectory:
    """Finds models by name, by `safelight/NAME` and by the operator's aliases.

    Ids are case-insensitive. The list of each caller's models is cached for 5 seconds.
    """

    def __init__(self, client: AsyncClient, aliases: dict[str, str]) -> None:
        self._client = client
        self._aliases = {alias.lower(): name for alias, name in aliases.items()}
        self._lists: TTLCache[tuple[tuple[str, str], ...], list[Model]] = TTLCache(
            _MAX_CALLERS, _KEEP_S
        )

    async def list(self, metadata: Sequence[tuple[str, str]] = ()) -> list[Model]:
        """Return the models that the caller may use, the default first.

        Raises:
            ServiceError: the call failed.
        """
        key = tuple(pair for pair in metadata if pair[0] == "authorization")
        models: list[Model] | None = self._lists.get(key)
        if models is None:
            models = await self._client.list_models(metadata=metadata)
            if all(model.capabilities is not None for model in models):
                self._lists[key] = models
        return models

    async def find(self, ids: Sequence[str], metadata: Sequence[tuple[str, str]] = ()) -> Model:
        """Return the model of the first known id; the default model if there is no id.

        Raises:
            GatewayError: none of the ids is known.
            ServiceError: the models could not be listed.
        """
        models = await self.list(metadata)
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
