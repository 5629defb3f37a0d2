"""A scripted service whose models fail, each in its own way, with the real service's statuses."""

from collections.abc import Iterator, Sequence

import grpc
from safelight.v1 import text_to_image_pb2 as pb

from safelight_service import errors
from safelight_service.server.status import to_status
from tests.client.scripted_service import ScriptedService, model_loading, whole_generation

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
"""A model that is being loaded: it is ready for whoever waits."""


class FailingService(ScriptedService):
    """Lists the models above; its tokens are all but `BAD_TOKEN`."""

    def __init__(self) -> None:
        super().__init__()
        capabilities = pb.ModelCapabilities(
            honoured_parameters=[f.name for f in pb.TextToImageParameters.DESCRIPTOR.fields]
        )
        self.models: Sequence[pb.Model] = [
            pb.Model(name=name, capabilities=capabilities)
            for name in (LOADING, "shapes", *FAILURES)
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
        """Fail as the model does."""
        self._check_token(context)
        if request.model in FAILURES:
            context.abort_with_status(to_status(FAILURES[request.model]))
        if ("x-wait-for-model", "true") not in [*context.invocation_metadata()]:
            context.abort_with_status(to_status(errors.ModelLoadingError(LOADING, 20.0)))
        yield model_loading()
        yield from whole_generation()

    def _check_token(self, context: grpc.ServicerContext) -> None:
        if ("authorization", f"Bearer {BAD_TOKEN}") in [*context.invocation_metadata()]:
            context.abort_with_status(to_status(errors.UnauthenticatedError()))
