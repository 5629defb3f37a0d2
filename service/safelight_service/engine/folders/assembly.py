"""Assembly: makes a pipeline of components, each loaded from its own folder."""

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from safelight_service.engine.folders.completeness import check_completeness
from safelight_service.engine.folders.components import Component
from safelight_service.engine.folders.errors import ModelFolderError, explain
from safelight_service.engine.folders.model_index import INDEX, ModelIndex, list_needed
from safelight_service.engine.folders.vetting import vet
from safelight_service.engine.folders.weights import (
    check_variant,
    check_whole,
    find_weights,
    list_variants,
)
from safelight_service.engine.hardware import is_out_of_memory

_POSITIONED_ENCODERS = (
    transformers.CLIPTextModel,
    transformers.CLIPTextModelWithProjection,
)
"""Encoders that read no more tokens than they have positions."""

_SHOWN_KEYS = 3
"""Most names of weights in a message."""


def assemble(
    index: ModelIndex,
    components: Iterable[Component],
    folder: Path,
    variant: str | None,
    dtype: torch.dtype,
) -> Any:
    """Check all components, then load them and make the pipeline.

    Args:
        index: the model's index.
        components: its components.
        folder: the model's folder.
        variant: the setting `variant`.
        dtype: precision of the weights.

    Raises:
        UnsafeModelError: a file might run code.
        ModelFolderError: a component is incomplete or cannot be loaded.
    """
    _check_index(index)
    found = list(components)
    files = {component.name: _check(component, variant) for component in found}
    check_variant(
        variant,
        {each for component in found for each in list_variants(component, _list(component))},
    )
    parts = dict.fromkeys(index.absent)
    for component in found:
        parts[component.name] = _load(component, files[component.name], variant, dtype)
    _bound_tokenizers(parts)
    with TemporaryDirectory() as scratch:
        # All components are passed, so that diffusers itself reads no file but this index.
        values = {name: value for name, value in index.values.items() if name not in parts}
        text = json.dumps(values)
        (Path(scratch) / INDEX).write_text(text, encoding="utf-8")
        try:
            pipeline = DiffusionPipeline.from_pretrained(scratch, **parts)
        except (TypeError, ValueError) as error:
            raise ModelFolderError(
                f"{INDEX}: cannot make the {values['_class_name']} of its components: {error}"
            ) from error
    pipeline.register_to_config(_name_or_path=str(folder))
    return pipeline


def _check_index(index: ModelIndex) -> None:
    """Check that the index names all components that its pipeline needs."""
    name = str(index.values["_class_name"])
    pipeline_class = getattr(diffusers, name)
    if missing := sorted(list_needed(pipeline_class) - index.values.keys()):
        raise ModelFolderError(f"{INDEX} does not name {', '.join(missing)}, which a {name} needs")


def _list(component: Component) -> list[str]:
    return [path.name for path in component.folder.iterdir() if path.is_file()]


def _check(component: Component, variant: str | None) -> str | None:
    """Check a component, and return the file that its weights are read from, if it has any."""
    vet(component)
    check_completeness(component)
    file = find_weights(component, _list(component), variant)
    if file is not None:
        check_whole(component, file)
    return file


def _load(component: Component, file: str | None, variant: str | None, dtype: torch.dtype) -> Any:
    """Load a component as diffusers would."""
    found = component.component_class
    options: dict[str, Any] = {}
    if file is not None:
        options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        if issubclass(found, transformers.PreTrainedModel):
            options["ignore_mismatched_sizes"] = True  # reported below; its own error names none
        if variant is not None and f".{variant}." in file:
            options["variant"] = variant
    with _readable(component.folder) as folder:
        try:
            loaded = found.from_pretrained(str(folder), **options)
        except Exception as error:
            if is_out_of_memory(error):  # others may be unloaded
                raise
            reason = explain(error).replace(str(folder), str(component.folder))
            raise ModelFolderError(
                f"{component.label}: cannot load the {component.class_name}: {reason}; "
                f"check its files, or {component.advice}"
            ) from error
    if file is None:
        return loaded
    model, info = loaded
    _check_loading(component, file, model, info)
    return model


def _bound_tokenizers(parts: Mapping[str, Any]) -> None:
    """Bound the tokenizers of CLIP encoders by the positions that these have.

    Some tokenizers state no limit, or a longer one. Pipelines pad prompts to it.
    """
    for name, tokenizer in parts.items():
        encoder = parts.get(name.replace("tokenizer", "text_encoder"))
        if name.startswith("tokenizer") and isinstance(encoder, _POSITIONED_ENCODERS):
            most = encoder.config.max_position_embeddings
            stated = tokenizer.model_max_length
            is_bound = isinstance(stated, int) and 0 < stated <= most
            tokenizer.model_max_length = stated if is_bound else most


def _check_loading(component: Component, file: str, model: Any, info: Any) -> None:
    """Refuse a model of which weights are missing or of another size.

    Libraries would draw them at random.
    """
    parameters = {name for name, _ in model.named_parameters()}
    unread = _list_output_weights(model)
    for key, stored, needed in sorted(info["mismatched_keys"]):
        raise ModelFolderError(
            f"{component.describe(file)} does not fit config.json: {key} is {tuple(stored)}, not "
            f"{tuple(needed)}; download both again, or {component.advice}"
        )
    missing = sorted(parameters.intersection(info["missing_keys"]) - unread)
    if missing:
        more = f" and {len(missing) - _SHOWN_KEYS} more" if len(missing) > _SHOWN_KEYS else ""
        raise ModelFolderError(
            f"{component.describe(file)} lacks weights of a {component.class_name}: "
            f"{', '.join(missing[:_SHOWN_KEYS])}{more}; {component.advice}"
        )


def _list_output_weights(model: Any) -> set[str]:
    """Return the weights of the head that predicts tokens, which no pipeline reads."""
    if not isinstance(model, transformers.PreTrainedModel):
        return set()
    head = model.get_output_embeddings()
    if head is None:
        return set()
    weights = {id(weight) for weight in head.parameters()}
    return {name for name, weight in model.named_parameters() if id(weight) in weights}


@contextmanager
def _readable(folder: Path) -> Iterator[Path]:
    """Yield a folder without byte order marks, which the libraries do not read.

    It is the folder itself if it has none, and otherwise one of links and copies.
    """
    marked = [path for path in folder.glob("*.json") if _has_mark(path)]
    if not marked:
        yield folder
        return
    with TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for path in folder.iterdir():
            if path in marked:
                text = path.read_text(encoding="utf-8-sig")
                (copy / path.name).write_text(text, encoding="utf-8")
            else:
                (copy / path.name).symlink_to(path.absolute())
        yield copy


def _has_mark(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
