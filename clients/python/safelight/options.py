"""The options of calls, one definition for both clients.

An option that is absent or None takes the model's default.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypedDict

DEFAULT_LINGER_S = 10.0

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Keys and values that travel beside a call."""


class CallOptions(TypedDict, total=False):
    """The options of every call."""

    timeout: float | None
    """Seconds until the call fails with DeadlineExceededError and the service
    stops its work. None: no limit. Absent: the client's own `timeout`."""

    metadata: Metadata
    """More metadata to send, such as a request id."""


class TextToImageOptions(CallOptions, total=False):
    """The options of `text_to_image`; the first eight as in huggingface_hub."""

    negative_prompt: str | None
    """What the image should not show."""

    height: int | None
    """Height in pixels."""

    width: int | None
    """Width in pixels."""

    num_inference_steps: int | None
    """Number of denoising steps; more take proportionally longer."""

    guidance_scale: float | None
    """How strongly the image follows the prompt; 1 and below turn guidance off."""

    model: str | None
    """Name of the model."""

    scheduler: str | None
    """Name or alias of the scheduler to denoise with."""

    seed: int | None
    """Seed of the noise; the same request with the same seed gives the same image.
    None: random."""

    wait_for_model: bool
    """Whether to wait for a model that is not loaded yet (the default) instead of
    failing with ModelLoadingError."""

    use_cache: bool
    """Whether a request with a seed that was answered before may be answered with the
    same bytes from the cache (the default)."""

    generation_id: str | None
    """The caller's name for the generation, unique among those that run or have ended
    lately. None: the client makes one."""

    linger: float
    """Seconds that the service goes on with a generation whose connection has broken,
    and that the client tries to take it up again. 0: neither; a broken connection then
    cancels it at once. Absent: 10."""

    output_mime_type: str | None
    """image/png, image/jpeg or image/webp. None: image/png."""

    output_quality: int | None
    """Quality of JPEG and WebP, from 1 to 100. None: 95."""


class GenerateOptions(TextToImageOptions, total=False):
    """The options of `generate`."""

    image_count: int | None
    """Number of images; image i is made with seed + i. None: 1."""

    preview_every: int | None
    """Steps from one preview to the next. None: no previews."""

    preview_mime_type: str | None
    """image/jpeg or image/webp. None: image/jpeg."""

    preview_max_side_px: int | None
    """Longest side of a preview, from 16 to 512. None: 256."""


def refuse_unknown_options(options: Mapping[str, object], known: frozenset[str]) -> None:
    """Do what Python does for an argument that a function does not take.

    Raises:
        TypeError: an option is not one of those known.
    """
    for name in sorted(options.keys() - known):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise TypeError(f"unknown option {name!r}{hint}")
