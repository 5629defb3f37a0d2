"""Image files: compress pictures to the requested format."""

import io

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from safelight_service.core.request import ResolvedOutput, ResolvedRequest

_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
_PNG_COMPRESSION = 3
"""About as fast as level 1 and as small as level 6, on photographs and on flat shapes."""


def encode_image(
    picture: PIL.Image.Image, request: ResolvedRequest, *, seed: int, model: str
) -> bytes:
    """Compress a finished picture; a PNG also holds the parameters as text."""
    stream = io.BytesIO()
    if request.output.mime_type == "image/png":
        text = PngInfo()
        text.add_text("parameters", describe_parameters(request, seed=seed, model=model))
        text.add_text("Software", "Safelight")
        picture.save(stream, "PNG", compress_level=_PNG_COMPRESSION, pnginfo=text)
    else:
        _save_lossy(picture, stream, request.output)
    return stream.getvalue()


def encode_preview(picture: PIL.Image.Image, mime_type: str) -> bytes:
    """Compress a preview; favours size over quality."""
    stream = io.BytesIO()
    _save_lossy(picture, stream, ResolvedOutput(mime_type, quality=80))
    return stream.getvalue()


def describe_parameters(request: ResolvedRequest, *, seed: int, model: str) -> str:
    """Format the parameters as AUTOMATIC1111's web UI does, for other tools to read.

    The text of the key `parameters` has the prompt, then a line with the negative prompt, then a
    line of `Name: value` pairs.
    """
    parameters = request.parameters
    lines = [request.inputs]
    if parameters.negative_prompt is not None:
        lines.append(f"Negative prompt: {parameters.negative_prompt}")
    facts = {
        "Steps": parameters.num_inference_steps,
        "Sampler": parameters.scheduler,
        "CFG scale": parameters.guidance_scale,
        "Seed": seed,
        "Size": f"{parameters.width}x{parameters.height}",
        "Model": model,
        "Step reuse": parameters.step_reuse or None,
    }
    known = {name: fact for name, fact in facts.items() if fact is not None}
    lines.append(", ".join(f"{name}: {fact}" for name, fact in known.items()))
    return "\n".join(lines)


def _save_lossy(picture: PIL.Image.Image, stream: io.BytesIO, output: ResolvedOutput) -> None:
    picture.convert("RGB").save(stream, _FORMATS[output.mime_type], quality=output.quality)
