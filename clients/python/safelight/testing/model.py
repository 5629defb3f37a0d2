"""The model of the fake service, and the rules of its requests."""

from collections.abc import Iterator

from safelight.testing.pictures import PREVIEWS
from safelight.v1 import text_to_image_pb2 as pb

SCHEDULER = "EulerDiscreteScheduler"
_MAX_SEED = 2**63 - 1

LIMITS = pb.ModelLimits(
    min_side_px=16,
    max_side_px=1024,
    size_multiple_px=8,
    max_pixel_count=1024 * 1024,
    max_step_count=100,
    max_guidance_scale=20,
    max_image_count=8,
    max_prompt_character_count=2000,
)
DEFAULTS = pb.TextToImageParameters(
    guidance_scale=4, num_inference_steps=4, width=64, height=64, scheduler=SCHEDULER
)
MODEL = pb.Model(
    name="fake",
    revision="1",
    is_default=True,
    state=pb.MODEL_STATE_READY,
    capabilities=pb.ModelCapabilities(
        pipeline_class="FakePipeline",
        supported_parameters=[field.name for field in pb.TextToImageParameters.DESCRIPTOR.fields],
        defaults=DEFAULTS,
        schedulers=[pb.Scheduler(name=SCHEDULER, aliases=["euler"])],
        limits=LIMITS,
        has_previews=True,
        device_type="cpu",
    ),
)


def find_violations(request: pb.GenerateRequest) -> list[tuple[str, str]]:
    """Return the path and the rule of each field of a request that breaks its rule."""
    return [
        (path, f"must be {rule}, not {value!r}")
        for path, value, is_valid, rule in _checks(request)
        if not is_valid
    ]


def _checks(request: pb.GenerateRequest) -> Iterator[tuple[str, object, bool, str]]:
    """Yield path, value, validity and rule of each field that is set or required."""
    longest = LIMITS.max_prompt_character_count
    fits = 1 <= len(request.inputs) <= longest
    yield "inputs", request.inputs[:64], fits, f"1 to {longest} characters"
    output, preview = request.output, request.preview
    yield "output.mime_type", output.mime_type, output.mime_type in ("", "image/png"), "image/png"
    kinds = ("", *PREVIEWS)
    yield "preview.mime_type", preview.mime_type, preview.mime_type in kinds, " or ".join(PREVIEWS)
    yield "preview.interval_steps", preview.interval_steps, preview.interval_steps >= 0, "from 0"
    if request.HasField("image_count"):
        yield _range("image_count", request.image_count, 1, LIMITS.max_image_count)
    parameters = request.parameters
    for side in ("width", "height"):
        if parameters.HasField(side):
            yield _side(f"parameters.{side}", getattr(parameters, side))
    if parameters.HasField("num_inference_steps"):
        steps = parameters.num_inference_steps
        yield _range("parameters.num_inference_steps", steps, 1, LIMITS.max_step_count)
    if parameters.HasField("guidance_scale"):
        scale = parameters.guidance_scale
        yield _range("parameters.guidance_scale", scale, 0, LIMITS.max_guidance_scale)
    if parameters.HasField("seed"):
        last_seed = _MAX_SEED - max(0, request.image_count - 1)
        yield _range("parameters.seed", parameters.seed, 0, last_seed)
    if parameters.HasField("scheduler"):
        is_known = parameters.scheduler in (SCHEDULER, "euler")
        yield "parameters.scheduler", parameters.scheduler, is_known, f"{SCHEDULER} or euler"


def _range(path: str, value: float, low: int, high: float) -> tuple[str, object, bool, str]:
    return path, value, low <= value <= high, f"from {low} to {high:.15g}"


def _side(path: str, value: int) -> tuple[str, object, bool, str]:
    low, high, multiple = LIMITS.min_side_px, LIMITS.max_side_px, LIMITS.size_multiple_px
    is_valid = low <= value <= high and value % multiple == 0
    return path, value, is_valid, f"a multiple of {multiple} from {low} to {high}"
