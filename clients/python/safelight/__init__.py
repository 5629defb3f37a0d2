"""The Python client of Safelight: images from text over gRPC, with progress and previews.

>>> from safelight import Client
>>> client = Client("localhost:50051")
>>> image = client.text_to_image("a red circle on a blue background")
>>> image.save("circle.png")
"""

from safelight._client.async_client import AsyncClient
from safelight._client.async_generation import AsyncGeneration
from safelight._client.client import Client
from safelight._client.connection import Tls
from safelight._client.generation import Generation
from safelight._version import __version__
from safelight.assembler import EventAssembler
from safelight.errors import (
    CallCancelledError,
    DeadlineExceededError,
    FieldViolation,
    GenerationExistsError,
    GenerationNotFoundError,
    IntegrityError,
    InternalServiceError,
    InvalidRequestError,
    ModelFailedError,
    ModelLoadingError,
    ModelNotFoundError,
    NonFiniteImageError,
    OutOfMemoryError,
    PermissionDeniedError,
    ProtocolError,
    QueueFullError,
    QuotaExceededError,
    ResourceExhaustedError,
    SafelightError,
    ServiceError,
    ServiceUnavailableError,
    UnauthenticatedError,
)
from safelight.events import (
    Accepted,
    CacheStatus,
    Completed,
    Event,
    GenerationOutcome,
    Image,
    ModelLoading,
    Preview,
    Progress,
    Queued,
    Restarted,
    Timings,
    Usage,
)
from safelight.models import Capabilities, Limits, Model, ModelState, Scheduler
from safelight.options import CallOptions, GenerateOptions, TextToImageOptions
from safelight.parameters import Parameters

__all__ = [
    "Accepted",
    "AsyncClient",
    "AsyncGeneration",
    "CacheStatus",
    "CallCancelledError",
    "CallOptions",
    "Capabilities",
    "Client",
    "Completed",
    "DeadlineExceededError",
    "Event",
    "EventAssembler",
    "FieldViolation",
    "GenerateOptions",
    "Generation",
    "GenerationExistsError",
    "GenerationNotFoundError",
    "GenerationOutcome",
    "Image",
    "IntegrityError",
    "InternalServiceError",
    "InvalidRequestError",
    "Limits",
    "Model",
    "ModelFailedError",
    "ModelLoading",
    "ModelLoadingError",
    "ModelNotFoundError",
    "ModelState",
    "NonFiniteImageError",
    "OutOfMemoryError",
    "Parameters",
    "PermissionDeniedError",
    "Preview",
    "Progress",
    "ProtocolError",
    "QueueFullError",
    "Queued",
    "QuotaExceededError",
    "ResourceExhaustedError",
    "Restarted",
    "SafelightError",
    "Scheduler",
    "ServiceError",
    "ServiceUnavailableError",
    "TextToImageOptions",
    "Timings",
    "Tls",
    "UnauthenticatedError",
    "Usage",
    "__version__",
]
