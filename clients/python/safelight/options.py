"""The options of calls, the same for both clients.

An option that is absent or None takes the model's default.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypedDict

DEFAULT_LINGER_S = 10.0

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Pairs of a key and a value, sent with a call."""


class CallOptions(TypedDict, total=False):
    """The options of every call."""

    timeout: float | None
    """Seconds after which the call fails and the service stops its work. The call ends by
    then, with all its retries. None: no limit. Absent: the client's `timeout`."""

    metadata: Metadata
    """More metadata to send, for example a request id."""


class TextToImageOptions(CallOptions, total=False):
    """The options of `text_to_image`; the first eight as in huggingface_hub."""

    negative_prompt: str | None
    """Content that the image should avoid."""

    height: int | None
    """Height in pixels."""

    width: int | None
    """Width in pixels."""

    num_inference_steps: int | None
    """Number of denoising steps; the time is proportional to it."""

    guidance_scale: float | None
    """Strength of the prompt; 1 and below turn guidance off."""

    model: str | None
    """Name of the model."""

    scheduler: str | None
    """Name or alias of the scheduler."""

    seed: int | None
    """Seed of the noise, from 0 to 2^63 - 1. The same request with the same seed gives
    the same image. None: random."""

    step_reuse: float | None
    """Share of the steps that reuse earlier outputs of the denoiser, from 0 to the model's
    limit: faster, and less exact."""

    wait_for_model: bool
    """Whether to wait for a model that is not loaded yet (the default), or to fail with
    ModelLoadingError."""

    use_cache: bool
    """Whether the service may answer a repeated request with a seed from its cache, with
    the same bytes (the default)."""

    generation_id: str | None
    """Name of the generation, unique among those running or recently ended. None: the
    client creates one."""

    linger: float
    """Seconds for which the service continues a generation whose connection has broken,
    and the client tries to resume it; at most 3600. 0: a broken connection cancels it.
    Absent: 10."""

    output_mime_type: str | None
    """image/png, image/jpeg or image/webp. None: image/png."""

    output_quality: int | None
    """Quality of JPEG and WebP, from 1 to 100. None: 95."""


class GenerateOptions(TextToImageOptions, total=False):
    """The options of `generate`."""

    image_count: int | None
    """Number of images; image i has the seed `seed + i`. None: 1."""

    preview_every: int | None
    """Number of steps from one preview to the next. None: no previews."""

    preview_mime_type: str | None
    """image/jpeg or image/webp. None: image/jpeg."""

    preview_max_side_px: int | None
    """Longest side of a preview in pixels, from 16 to 512. None: 256."""


def refuse_unknown_options(options: Mapping[str, object], known: frozenset[str]) -> None:
    """Refuse options that a function does not take, as Python refuses arguments.

    Raises:
        TypeError: an option is unknown; suggests a similar one.
    """
    for name in sorted(options.keys() - known):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise TypeError(f"unknown option {name!r}{hint}")
