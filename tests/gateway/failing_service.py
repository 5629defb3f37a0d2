"""Scripted service: each model fails in its own way, with a status of the real service."""

import threading
from collections.abc import Iterator, Sequence

import grpc
from safelight.v1 import text_to_image_pb2 as pb

from safelight_service.core import errors
from safelight_service.grpc_server.status import to_status
from tests.client.scripted_service import (
    ScriptedService,
    accepted,
    model_loading,
    whole_generation,
)

BAD_TOKEN = "hf_bad"
FAILURES: dict[str, errors.SafelightError] = {
    "queue-full": errors.QueueFullError(queue_size=3, retry_after_s=2.0),
    "out-of-memory": errors.OutOfMemoryError(),
    "broken": errors.ModelFailedError("broken"),
    "forbidden": errors.ModelForbiddenError("forbidden", ["shapes"]),
    "late": errors.DeadlineError(left_s=1.0, needed_s=2.0),
    "stopping": errors.StoppingError(),
    "faulty": errors.InternalError("0123"),
}
"""The failure of each model."""

LOADING = "loading"
"""Model that is still loading, and ready for callers that wait."""
READY = "shapes"
"""Ready model with the name of the real one, but without support for negative prompts."""
ENDLESS = "endless"
"""Model whose generations are accepted and never end."""

_SUPPORTED = [field.name for field in pb.TextToImageParameters.DESCRIPTOR.fields]


class FailingService(ScriptedService):
    """Lists the models above; accepts all tokens except `BAD_TOKEN`.

    Attributes:
        tokens: The accepted tokens, one of which each call needs; None to accept all.
        peers: The connections that calls of the endless model came from.
        has_arrived: Set when a caller has started the endless model.
        has_left: Set when that call has ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens: set[str] | None = None
        self.peers: list[str] = []
        self.has_arrived, self.has_left = threading.Event(), threading.Event()
        everything = pb.ModelCapabilities(supported_parameters=_SUPPORTED, device_type="cuda")
        less = pb.ModelCapabilities(supported_parameters={*_SUPPORTED} - {"negative_prompt"})
        self.models: Sequence[pb.Model] = [
            pb.Model(name=READY, capabilities=less),
            *(
                pb.Model(name=name, capabilities=everything)
                for name in (LOADING, ENDLESS, *FAILURES)
            ),
        ]

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """List the models."""
        self._check_token(context)
        return pb.ListModelsResponse(models=self.models)

    def Generate(
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateResponse]:
        """Fail, or generate, as the model does."""
        self._check_token(context)
        self.requests.append(request)
        self._note(context)
        if request.model in FAILURES:
            context.abort_with_status(to_status(FAILURES[request.model]))
        if request.model == ENDLESS:
            yield from self._go_on(context)
        if request.model == LOADING:
            if self.metadata["x-wait-for-model"] != "true":
                context.abort_with_status(to_status(errors.ModelLoadingError(LOADING, 20.0)))
            yield model_loading()
        yield from whole_generation()

    def _go_on(self, context: grpc.ServicerContext) -> Iterator[pb.GenerateResponse]:
        has_ended = threading.Event()
        context.add_callback(has_ended.set)
        self.peers.append(context.peer())
        yield accepted()
        self.has_arrived.set()
        has_ended.wait()
        self.has_left.set()

    def _check_token(self, context: grpc.ServicerContext) -> None:
        sent = dict(context.invocation_metadata()).get("authorization", "")
        is_known = self.tokens is None or str(sent).removeprefix("Bearer ") in self.tokens
        if sent == f"Bearer {BAD_TOKEN}" or not is_known:
            context.abort_with_status(to_status(errors.UnauthenticatedError()))
