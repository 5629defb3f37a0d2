"""Parameters: read a body into an `ImageRequest`, under any accepted name."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from safelight_gateway.edge.call import Call, parse_flag
from safelight_gateway.errors import invalid_field
from safelight_gateway.fields.adapters import Adapters, read_adapters
from safelight_gateway.fields.rules import find_ignored
from safelight_gateway.fields.sizes import Size, read_size
from safelight_gateway.fields.values import (
    Values,
    image_type,
    integer,
    long_integer,
    model_id,
    number,
    shown,
    text,
)
from safelight_gateway.generation import schedulers
from safelight_gateway.generation.field_names import FieldNames
from safelight_gateway.generation.request import ImageRequest

_RANDOM_SEED = -1
"""Value that some APIs use for a random seed."""

_MODEL = "model"
_LOSSLESS = "image/png"
_PATHS = {
    "prompt": "inputs",
    "n": "image_count",
    "output_format": "output.mime_type",
    "output_quality": "output.quality",
}
"""Paths in the contract; those of other parameters begin with `parameters.`."""


def read_request(
    call: Call,
    fields: Mapping[str, Any],
    *,
    model: Iterable[str] = (),
    own_fields: Collection[str] = (),
    options: Mapping[str, Any] | None = None,
    wait_for_model: bool = True,
    max_count: int | None = None,
    preview_count: int = 0,
) -> ImageRequest:
    """Read the fields of a body, under any accepted name.

    Args:
        call: The call; its headers override `options`.
        fields: Names and values. None counts as absent.
        model: Possible ids of the model, by precedence.
        own_fields: Fields that the dialect reads itself.
        options: Values of `use_cache` and `wait_for_model` in the body.
        wait_for_model: Default for `wait_for_model`.
        max_count: Maximum number of images in the answer; None for no limit.
        preview_count: Number of previews of each image.

    Raises:
        GatewayError: a field has an invalid value, or is not supported.
    """
    models = tuple(model)
    fields = {name: value for name, value in fields.items() if value is not None}
    if _MODEL in fields and _MODEL not in own_fields:
        _check_model(fields.pop(_MODEL), models)
    ignored = find_ignored(fields, call.state.dialects, own_fields)
    values = Values(fields, call.state.dialects)
    prompt = values.read("prompt", text) or ""
    size = read_size(values)
    adapters = read_adapters(values, call.state.adapter_aliases)
    seed = values.read("seed", long_integer)
    mime_type = values.read("output_format", image_type) or _LOSSLESS
    count = values.read("n", integer)
    if max_count is not None and (count or 0) > max_count:
        rule = f"must be at most {max_count}, since the answer holds no more images"
        raise invalid_field(values.names["n"], rule)
    # Some clients send a quality for PNG, which has none.
    quality = values.read("output_quality", integer)
    if quality is not None and mime_type == _LOSSLESS:
        ignored, quality = (*ignored, values.names["output_quality"]), None
    return ImageRequest(
        prompt=prompt,
        negative_prompt=values.read("negative_prompt", text) or None,
        width=size.width,
        height=size.height,
        shape=size.shape,
        num_inference_steps=values.read("num_inference_steps", integer),
        guidance_scale=values.read("guidance_scale", number),
        step_reuse=values.read("step_reuse", number),
        scheduler=_read_scheduler(values),
        adapters=adapters.scales,
        seed=None if seed == _RANDOM_SEED else seed,
        count=1 if count is None else count,
        preview_count=preview_count,
        model=models,
        output_mime_type=mime_type,
        output_quality=quality,
        use_cache=_read_option(call, options, "use_cache", default=True),
        wait_for_model=_read_option(call, options, "wait_for_model", default=wait_for_model),
        ignored_fields=(*ignored, *adapters.ignored),
        field_names=_name_fields(values, size, adapters),
        context=call.context,
    )


def _check_model(value: object, models: Collection[str]) -> None:
    """Refuse a model in the body that is not the one in the path."""
    if models and model_id(_MODEL, value).lower() not in {id_.lower() for id_ in models}:
        raise invalid_field(_MODEL, f"must be the model in the path or absent, not {shown(value)}")


def _read_scheduler(values: Values) -> str | None:
    """Return the scheduler. With a sampler, the field `scheduler` is its noise schedule."""
    sampler = values.read("sampler", text)
    scheduler = values.read("scheduler", text)
    if not sampler:
        return scheduler or None
    combined = schedulers.combine(sampler, scheduler)
    if combined is None:
        allowed = " or ".join(schedulers.SCHEDULES)
        raise invalid_field(
            values.names["scheduler"],
            f"must be {allowed} with {values.names['sampler']}, not {shown(scheduler)}",
        )
    values.names["scheduler"] = values.names["sampler"]
    return combined


def _name_fields(values: Values, size: Size, adapters: Adapters) -> FieldNames:
    names = {
        _PATHS.get(parameter, f"parameters.{parameter}"): name
        for parameter, name in values.names.items()
    }
    names |= adapters.field_names
    parts: dict[str, str] = {}
    combined = size.field or (size.shape.field if size.shape else None)
    for side in ("width", "height"):
        if combined is not None and (size.field or getattr(size, side) is None):
            names[f"parameters.{side}"] = combined
            parts[f"parameters.{side}"] = side
    return FieldNames(names, parts)


def _read_option(
    call: Call, options: Mapping[str, Any] | None, name: str, *, default: bool
) -> bool:
    header = call.flag(f"x-{name.replace('_', '-')}")
    if header is not None:
        return header
    value = (options or {}).get(name)
    return default if value is None else parse_flag(f"options.{name}", value)
