"""Component: a part of a pipeline, and the folder that it is read from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import transformers

from safelight_service.engine.folders.errors import ModelFolderError
from safelight_service.engine.folders.model_index import INDEX, ModelIndex, find_class, list_needed

DIFFUSERS_STEM = "diffusion_pytorch_model"
"""Start of the names of the weights of diffusers' models."""

_DISPENSABLE = {"StableDiffusion3Pipeline": ("text_encoder_3", "tokenizer_3")}
"""Components that a pipeline does without, besides those that it declares optional."""

_NEEDED = ("scheduler", "transformer", "unet", "vae")
"""Components that the service itself needs."""


@dataclass(frozen=True)
class Component:
    """A component that is loaded."""

    name: str
    library: str
    class_name: str
    folder: Path
    """Folder that its files lie in."""
    root: Path
    """Folder of the model, or the one that the setting `components` names."""
    replaced_by: str | None
    """Value of the setting `components`; None for a component of the model itself."""
    is_optional: bool
    """Whether the pipeline can do without it."""

    @property
    def component_class(self) -> Any:
        """Class that loads it."""
        return find_class(self.library, self.class_name)

    @property
    def label(self) -> str:
        """Its name for messages, or the setting that puts it in place of the model's own."""
        return self.name if self.replaced_by is None else f"components.{self.name}"

    @property
    def advice(self) -> str:
        """How the setting `components` can replace it, for messages."""
        replace = f"set components.{self.name} to a folder or Hub id with one that loads"
        return f"{replace}, or to false to leave it out" if self.is_optional else replace

    def describe(self, file: Path | str) -> str:
        """Return a file's name for messages: relative to the model, or after the setting."""
        path = (self.folder / file).relative_to(self.root).as_posix()
        return path if self.replaced_by is None else f"{self.label}: {path}"


def find_stem(component_class: Any) -> str | None:
    """Return the start of the names of a class's weights; None if it has no weights."""
    if issubclass(component_class, diffusers.ModelMixin):
        return DIFFUSERS_STEM
    if issubclass(component_class, transformers.PreTrainedModel):
        return "model"
    return None


def find_components(
    index: ModelIndex, folder: Path, settings: Mapping[str, str | bool], fetched: Mapping[str, Path]
) -> list[Component]:
    """Find the folder of each component.

    Args:
        index: the model's index.
        folder: the model's folder.
        settings: the setting `components`.
        fetched: folders of the components whose setting is a Hub id, by component.

    Raises:
        ModelFolderError: a component has no folder, or the settings leave out one that is needed.
    """
    pipeline = str(index.values["_class_name"])
    needed = list_needed(getattr(diffusers, pipeline)) - {*_DISPENSABLE.get(pipeline, ())}
    for name in index.absent:
        if settings.get(name) is False and name in _NEEDED:
            raise ModelFolderError(f"components.{name} = false: no model can do without it")
        if settings.get(name) is False and name in needed:
            raise ModelFolderError(f"components.{name} = false: a {pipeline} needs it")
        if name in needed or name in _NEEDED:
            raise ModelFolderError(f"{INDEX}: {name} is null, but a {pipeline} needs it")
    found = []
    for name in index.components:
        source = settings.get(name)
        root = fetched.get(name, Path(source)) if isinstance(source, str) else folder
        home = root / name if (root / name).is_dir() else root
        component = make_component(index, name, home, root, settings)
        _check_folder(component)
        found.append(component)
    return found


def make_component(
    index: ModelIndex, name: str, folder: Path, root: Path, settings: Mapping[str, str | bool]
) -> Component:
    """Describe a component of a model index that is read from a folder in `root`."""
    library, class_name = index.components[name]
    source = settings.get(name)
    return Component(
        name,
        library,
        class_name,
        folder,
        root,
        replaced_by=source if isinstance(source, str) else None,
        is_optional=name in _list_optional(index),
    )


def _list_optional(index: ModelIndex) -> set[str]:
    name = str(index.values["_class_name"])
    declared = getattr(diffusers, name)._optional_components
    return {*declared, *_DISPENSABLE.get(name, ())} - {*_NEEDED}


def _check_folder(component: Component) -> None:
    name = component.name
    if component.replaced_by is None and component.folder == component.root:
        raise ModelFolderError(
            f"{name}: {INDEX} names it, but there is no folder {name}; {component.advice}"
        )
    if not component.folder.is_dir():
        kind = "a file" if component.folder.exists() else "missing"
        raise ModelFolderError(
            f"components.{name} must be a folder or a Hub id; {component.folder} is {kind}"
        )
    if (component.folder / INDEX).is_file():
        raise ModelFolderError(f"components.{name}: {component.folder} has no folder {name}")
