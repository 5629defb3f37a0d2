"""ModelIndex: the file of a model that names its pipeline and its components."""

import difflib
import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import transformers

from safelight_service.engine.folders.errors import ModelFolderError, UnsafeModelError

INDEX = "model_index.json"

_SHOWN_CHARACTERS = 80
"""Most characters of a value in a message."""

_LIBRARIES: Mapping[str, Any] = {"diffusers": diffusers, "transformers": transformers}

_RENAMED = {"CLIPFeatureExtractor": "CLIPImageProcessor", "MT5Tokenizer": "T5Tokenizer"}
"""Classes that older models name, and transformers no longer has."""

_COMPONENT_CLASSES = (
    diffusers.BaseGuidance,
    diffusers.ModelMixin,
    diffusers.SchedulerMixin,
    transformers.FeatureExtractionMixin,
    transformers.ImageProcessingMixin,
    transformers.PreTrainedModel,
    transformers.PreTrainedTokenizerBase,
    transformers.ProcessorMixin,
)


@dataclass(frozen=True)
class ModelIndex:
    """A model index, with the components that the settings keep."""

    values: Mapping[str, Any]
    """Content of the file."""

    components: Mapping[str, tuple[str, str]]
    """Library and class of each component that is loaded, by its name.

    Others that the file names are none of the pipeline's, and diffusers ignores them.
    """

    absent: tuple[str, ...]
    """Components that the pipeline goes without: null in the file, or left out by the settings."""


def read_index(folder: Path, settings: Mapping[str, str | bool]) -> ModelIndex:
    """Read and check a model's index.

    Args:
        folder: folder of the model.
        settings: the setting `components`. Components that it leaves out are not checked.

    Raises:
        UnsafeModelError: the pipeline or a component might run code.
        ModelFolderError: the file is missing or no model index, or the settings name an unknown
            component.
        ImportError: a component needs a library that is not installed.
    """
    values = _read(folder)
    class_name = values.get("_class_name")
    if not _is_self_contained_pipeline(class_name):
        raise UnsafeModelError(
            INDEX, f"_class_name must be a pipeline of diffusers alone, not {class_name!r}"
        )
    pipeline_class = getattr(diffusers, str(class_name))
    taken = inspect.signature(pipeline_class.__init__).parameters
    named = {
        name: value for name, value in values.items() if name in taken and _names_component(value)
    }
    for name in list_needed(pipeline_class) | {*pipeline_class._optional_components}:
        if name in values and name not in named and name in taken:
            raise ModelFolderError(
                f"{INDEX}: {name} must be a library and a class, or null and null, "
                f"not {json.dumps(values[name])[:_SHOWN_CHARACTERS]}"
            )
    _check_names(settings, named, str(class_name))
    components = {}
    absent = []
    for name, value in named.items():
        if settings.get(name) is False or value[0] is None:
            absent.append(name)
        else:
            components[name] = _check_component(name, value)
    return ModelIndex(values, components, tuple(absent))


def list_needed(pipeline_class: Any) -> set[str]:
    """Return the names of the components without which a pipeline cannot be made."""
    taken = inspect.signature(pipeline_class.__init__).parameters
    needed = {name for name in taken if taken[name].default is inspect.Parameter.empty}
    return needed - {"self", "args", "kwargs", *pipeline_class._optional_components}


def find_class(library: str, class_name: str) -> Any:
    """Return a component's class; None if this version of the library has none of that name."""
    if library in _LIBRARIES:
        return getattr(_LIBRARIES[library], class_name, None)
    return getattr(importlib.import_module(f"diffusers.pipelines.{library}"), class_name, None)


def read_json(path: Path, where: str) -> Any:
    """Read a JSON file; `where` stands for it in errors.

    Raises:
        ModelFolderError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ModelFolderError(f"{where} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ModelFolderError(f"{where} is nested too deeply; download it again") from None
    except ValueError as error:
        raise ModelFolderError(f"{where} must be JSON in UTF-8: {error}") from None


def read_object(path: Path, where: str) -> dict[str, Any]:
    """Read a JSON file that holds an object; `where` stands for it in errors.

    Raises:
        ModelFolderError: it cannot be read, or is none.
    """
    values = read_json(path, where)
    if not isinstance(values, dict):
        raise ModelFolderError(f"{where} must be a JSON object; download it again")
    return values


def _read(folder: Path) -> dict[str, Any]:
    file = folder / INDEX
    if not file.is_file():
        snapshots = sorted(folder.glob(f"snapshots/*/{INDEX}"))
        hint = (
            f"it is a folder of the Hub's cache; set source to {snapshots[0].parent}"
            if snapshots
            else "source must be the folder of a whole pipeline, as save_pretrained writes it"
        )
        raise ModelFolderError(f"{INDEX} is missing in {folder}: {hint}")
    return read_object(file, INDEX)


def _check_names(
    settings: Mapping[str, str | bool], named: Mapping[str, Any], pipeline: str
) -> None:
    for name, source in settings.items():
        if name not in named:
            close = difflib.get_close_matches(name, named, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ModelFolderError(
                f"components.{name} is no component of this {pipeline}; {hint}"
                f"its components are {', '.join(named)}"
            )
        if source is not False and named[name][0] is None:
            raise ModelFolderError(
                f"components.{name} cannot be replaced: {INDEX} names no class for it"
            )


def _names_component(value: object) -> bool:
    """Whether a value names the library and the class of a component, or is null twice."""
    match value:
        case [str(), str()] | [None, None]:
            return True
    return False


def _check_component(name: str, value: list[str]) -> tuple[str, str]:
    """Return the library and the class of a component, by their present names."""
    library, class_name = value
    if not _is_known_library(library):
        raise UnsafeModelError(
            INDEX, f"{name} must come from diffusers or transformers, not {library!r}"
        )
    if class_name.endswith("Pipeline"):  # would read weights of any format
        raise UnsafeModelError(INDEX, f"{name} must not be a pipeline: {class_name!r}")
    class_name = _RENAMED.get(class_name, class_name)
    found = find_class(library, class_name)
    if found is None:
        raise ModelFolderError(
            f"{INDEX}: {name} is a {class_name}, which the installed {library} does not have"
        )
    if missing := list(getattr(found, "_backends", [])):
        raise ImportError(f"{name} is a {class_name}, which needs {' and '.join(missing)}")
    if not isinstance(found, type) or not issubclass(found, _COMPONENT_CLASSES):
        raise UnsafeModelError(INDEX, f"{name} must be a component, not {class_name!r}")
    return library, class_name


def _is_self_contained_pipeline(class_name: object) -> bool:
    found: Any = getattr(diffusers, class_name, None) if isinstance(class_name, str) else None
    is_pipeline = isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)
    if not is_pipeline or found is diffusers.DiffusionPipeline:
        return False
    return not found._load_connected_pipes


def _is_known_library(library: str) -> bool:
    """Whether a library is diffusers, transformers or a package of diffusers' pipelines."""
    if library in _LIBRARIES:
        return True
    spec = find_spec(f"diffusers.pipelines.{library}") if library.isidentifier() else None
    return spec is not None and spec.submodule_search_locations is not None
