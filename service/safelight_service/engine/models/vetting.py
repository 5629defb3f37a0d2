"""Vetting: refuses model folders that could run code, before anything in them is loaded.

Only JSON, vocabularies and safetensors of a model are ever read. Many Hub repositories hold other
files as well: pickles beside safetensors, checkpoints of other tools, unused folders. These are
ignored. Refused are, by name of the file:

- Python files anywhere;
- a model index that would make diffusers fetch code or other repositories: its class is no
  pipeline of diffusers or consists of other pipelines, or a component comes from elsewhere than
  diffusers and transformers;
- weights that can run code, in a component without safetensors;
- an index of shards that names anything but safetensors beside it;
- adapters as components, since they name another model to load.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import transformers
from diffusers.pipelines.pipeline_loading_utils import variant_compatible_siblings
from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError

_INDEX = "model_index.json"
_PICKLES = (".bin", ".ckpt", ".msgpack", ".pickle", ".pkl", ".pt", ".pth")
_ADAPTERS = ("adapter_config.json", "adapter_model.bin")
_TEXTS = (".jinja", ".json", ".model", ".txt")
"""Configurations and vocabularies."""


class UnsafeModelError(Exception):
    """A model is refused; the message names the file, relative to its folder, and the reason."""

    def __init__(self, file: Path | str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")


def inspect(folder: Path) -> None:
    """Check everything that loading would read.

    Raises:
        UnsafeModelError: a file is refused.
        ImportError: a component needs a library that is not installed.
        OSError: the folder has no model index.
        ValueError: the model index is not JSON.
    """
    homes = [_home(folder, component) for component in _read_index(folder)]
    for root in (folder, *homes):  # rglob follows no links, and a component may be one
        for path in sorted(root.rglob("*")):
            _check_file(path, path.relative_to(folder))
    for home in homes:
        _check_weights(home, folder)


def fetch(repository: str, revision: str, variant: str | None) -> Path:
    """Return a folder with the snapshot of a Hub repository; download missing files.

    Downloads only files that loading reads, after the model index has been checked. A commit that
    is in the cache needs no network.

    Raises:
        UnsafeModelError: the model index is refused.
        ImportError: a component needs a library that is not installed.
        OSError: a file is neither in the cache nor available, for example with HF_HUB_OFFLINE.
        ValueError: the repository has no such variant.
    """
    index = snapshot_download(repository, revision=revision or None, allow_patterns=_INDEX)
    folder = Path(index)
    components = _read_index(folder)
    try:
        tree = get_cached_repo_tree(repository, revision=folder.name)
    except CachedRepoTreeNotFoundError:  # offline, with a cache of an older huggingface_hub
        return folder
    files = [file.path for file in tree if file.path.split("/")[0] in components]
    safetensors = [file for file in files if ".safetensors" in file]
    weights, _ = variant_compatible_siblings(safetensors, variant=variant)
    texts = [file for file in files if file.endswith(_TEXTS)]
    wanted = [_INDEX, *weights, *texts]
    return Path(snapshot_download(repository, revision=folder.name, allow_patterns=wanted))


def _read_index(folder: Path) -> list[str]:
    """Check the model index, and return the names of the components."""
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    class_name = index.get("_class_name")
    if not _is_self_contained_pipeline(class_name):
        raise UnsafeModelError(
            _INDEX, f"_class_name must be a pipeline of diffusers alone, not {class_name!r}"
        )
    components = dict(_components(index))
    for name, (library, component_class) in components.items():
        if not _is_known_library(library):
            raise UnsafeModelError(
                _INDEX, f"{name} must come from diffusers or transformers, not {library!r}"
            )
        if component_class.endswith("Pipeline"):  # would read weights of any format
            raise UnsafeModelError(_INDEX, f"{name} must not be a pipeline: {component_class!r}")
        if missing := _find_missing_libraries(library, component_class):
            raise ImportError(f"{name} is a {component_class}, which needs {' and '.join(missing)}")
    return list(components)


def _components(index: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the name, the library and the class of each component that is present."""
    for name, value in index.items():
        match value:
            case [str(library), str(class_name)] if not name.startswith("_"):
                yield name, (library, class_name)


def _is_self_contained_pipeline(class_name: object) -> bool:
    found: Any = getattr(diffusers, class_name, None) if isinstance(class_name, str) else None
    is_pipeline = isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)
    return is_pipeline and not found._load_connected_pipes


def _is_known_library(library: str) -> bool:
    """Whether a library is diffusers, transformers or a package of diffusers' pipelines."""
    if library in ("diffusers", "transformers"):
        return True
    spec = find_spec(f"diffusers.pipelines.{library}") if library.isidentifier() else None
    return spec is not None and spec.submodule_search_locations is not None


def _find_missing_libraries(library: str, class_name: str) -> list[str]:
    """Return the missing libraries of a class, by its placeholder in diffusers."""
    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    return list(getattr(getattr(module, class_name, None), "_backends", []))


def _home(folder: Path, component: str) -> Path:
    """Return the folder that diffusers reads a component from."""
    return folder / component if (folder / component).is_dir() else folder


def _check_file(path: Path, name: Path) -> None:
    if path.suffix.lower() == ".py":
        raise UnsafeModelError(name, "code that comes with a model is never run")
    if fnmatch(path.name, "*.safetensors.index*.json"):
        shards = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        if any(
            Path(shard).name != shard or Path(shard).suffix != ".safetensors" for shard in shards
        ):
            raise UnsafeModelError(name, "must name safetensors in its own folder only")


def _check_weights(home: Path, folder: Path) -> None:
    files = sorted(path for path in home.iterdir() if path.is_file())
    has_safetensors = any(path.suffix == ".safetensors" for path in files)
    for path in files:
        name = path.relative_to(folder)
        if path.name in _ADAPTERS:
            raise UnsafeModelError(name, "an adapter is no component")
        if path.suffix.lower() in _PICKLES and not has_safetensors:
            raise UnsafeModelError(
                name, "reading it may run code; safetensors are needed beside it"
            )
