"""Image files: pixels compressed to the format that the caller asked for."""

import io

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from safelight_service.core.request import ResolvedOutput, ResolvedRequest

_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
_PNG_COMPRESSION = 3
"""Nearly level 1's speed and level 6's size on photographs and on flat shapes."""


def encode_image(
    picture: PIL.Image.Image, request: ResolvedRequest, *, seed: int, model: str
) -> bytes:
    """Compress a finished picture; a PNG carries its parameters as text."""
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
    """Compress a preview; small matters more than fine."""
    stream = io.BytesIO()
    _save_lossy(picture, stream, ResolvedOutput(mime_type, quality=80))
    return stream.getvalue()


def describe_parameters(request: ResolvedRequest, *, seed: int, model: str) -> str:
    """Write the parameters in the layout that AUTOMATIC1111's web UI introduced.

    It is what other tools look for under the key `parameters`: the prompt, the
    negative prompt on a line of its own, then a line of `Name: value` pairs.
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
    }
    known = {name: fact for name, fact in facts.items() if fact is not None}
    lines.append(", ".join(f"{name}: {fact}" for name, fact in known.items()))
    return "\n".join(lines)


def _save_lossy(picture: PIL.Image.Image, stream: io.BytesIO, output: ResolvedOutput) -> None:
    picture.convert("RGB").save(stream, _FORMATS[output.mime_type], quality=output.quality)
