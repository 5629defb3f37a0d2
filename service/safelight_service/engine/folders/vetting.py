"""Vetting: refuses model folders that could run code, before anything in them is loaded.

Only JSON, vocabularies and safetensors of a model's components are ever read. Many Hub repositories
hold other files as well: handlers, pickles beside safetensors, checkpoints of other tools, unused
folders. These are ignored. Refused are, by name of the file:

- a model index that would make diffusers fetch code or other repositories: its class is no
  pipeline of diffusers or consists of other pipelines, or a component comes from elsewhere than
  diffusers and transformers (`model_index.py`);
- Python files in the folder of a component;
- weights that can run code, in a component without safetensors;
- an index of shards that names anything but safetensors beside it;
- adapters as components, since they name another model to load.

Components that a setting puts in place of the model's own are vetted alike.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from safelight_service.engine.folders.components import Component
from safelight_service.engine.folders.errors import ModelFolderError, UnsafeModelError
from safelight_service.engine.folders.model_index import read_json

_PICKLES = (".bin", ".ckpt", ".msgpack", ".pickle", ".pkl", ".pt", ".pth")
_ADAPTERS = ("adapter_config.json", "adapter_model.bin")


def vet(component: Component) -> None:
    """Check everything that loading a component would read.

    Raises:
        UnsafeModelError: a file is refused.
        ModelFolderError: an index of shards cannot be read.
    """
    for path in sorted(component.folder.rglob("*")):
        _check_file(component, path)
    vet_weights(component, (path.name for path in component.folder.iterdir() if path.is_file()))


def vet_weights(component: Component, names: Iterable[str]) -> None:
    """Check the weights of a component by the names of the files in its folder.

    Raises:
        UnsafeModelError: reading them may run code.
    """
    files = sorted(names)
    has_safetensors = any(file.endswith(".safetensors") for file in files)
    for file in files:
        if file in _ADAPTERS:
            raise UnsafeModelError(component.describe(file), "an adapter is no component")
        if Path(file).suffix.lower() in _PICKLES and not has_safetensors:
            raise UnsafeModelError(
                component.describe(file),
                "reading it may run code; safetensors are needed beside it: convert it, or "
                f"{component.advice}",
            )


def _check_file(component: Component, path: Path) -> None:
    name = component.describe(path.relative_to(component.folder))
    if path.suffix.lower() == ".py":
        raise UnsafeModelError(
            name, f"code that comes with a model is never run: remove it, or {component.advice}"
        )
    if fnmatch(path.name, "*.safetensors.index*.json") and path.is_file():
        for shard in read_shards(path, name):
            if Path(shard).name != shard or Path(shard).suffix != ".safetensors":
                raise UnsafeModelError(name, "must name safetensors in its own folder only")


def read_shards(path: Path, name: str) -> list[str]:
    """Return the names of the files that an index of shards lists.

    `name` stands for the index in errors.

    Raises:
        ModelFolderError: the file is no index of shards.
    """
    content = read_json(path, name)
    weights = content.get("weight_map") if isinstance(content, dict) else None
    shards = list(weights.values()) if isinstance(weights, dict) else []
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise ModelFolderError(f"{name} is no index of shards; download it again")
    return sorted(set(shards))
