"""Fetching: finds the folder of a model, and downloads what a Hub id lacks in the local cache."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from diffusers.pipelines.pipeline_loading_utils import variant_compatible_siblings
from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from safelight_service.engine.folders.completeness import TEXTS
from safelight_service.engine.folders.components import Component, make_component
from safelight_service.engine.folders.errors import ModelFolderError
from safelight_service.engine.folders.model_index import INDEX, ModelIndex, read_index
from safelight_service.engine.folders.vetting import vet_weights
from safelight_service.engine.folders.weights import check_variant, find_weights, list_variants
from safelight_service.settings import EMBEDDED_MODEL, ModelSettings

_CONVERT = (
    "convert it once: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), "
    "with the class of the model's pipeline"
)


def find_folder(settings: ModelSettings) -> Path:
    """Return the model's folder; download it if the source is an id of the Hub.

    Raises:
        ModelFolderError: the source is no folder, or the Hub lacks files.
        UnsafeModelError: the model index or the weights on the Hub are refused.
        ImportError: a component needs a library that is not installed.
        OSError: a file is neither in the cache nor available.
    """
    if settings.source == EMBEDDED_MODEL:
        return Path(str(resources.files("safelight_service"))) / "models" / EMBEDDED_MODEL
    if settings.is_on_hub and settings.is_pinned:  # a missing folder is no id
        return fetch(settings.source, settings.revision, settings.variant, settings.components)
    folder = Path(settings.source)
    if folder.is_file():
        raise ModelFolderError(f"source must be a folder, not the single file {folder}: {_CONVERT}")
    if not folder.is_dir():
        raise ModelFolderError(f"source: there is no folder {folder}")
    return folder


def fetch(
    repository: str,
    revision: str,
    variant: str | None,
    components: Mapping[str, str | bool] | None = None,
) -> Path:
    """Return a folder with the snapshot of a Hub repository; download missing files.

    Downloads only files that loading reads, after the model index has been checked. A commit that
    is in the cache needs no network.

    Args:
        repository: the Hub id.
        revision: a commit, tag or branch; empty for the main branch.
        variant: the setting `variant`.
        components: the setting `components`; those that it names are not downloaded.

    Raises:
        UnsafeModelError: the model index or the weights are refused.
        ModelFolderError: weights are missing, or there are none of this variant.
        ImportError: a component needs a library that is not installed.
        OSError: a file is neither in the cache nor available, for example with HF_HUB_OFFLINE.
    """
    settings = components or {}
    folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=INDEX))
    index = read_index(folder, settings)
    own = [name for name in index.components if name not in settings]
    try:
        tree = get_cached_repo_tree(repository, revision=folder.name)
    except CachedRepoTreeNotFoundError:  # offline, with a cache of an older huggingface_hub
        return folder
    files = [file.path for file in tree if file.path.split("/")[0] in own]
    variants = set()
    for name in own:
        component = make_component(index, name, folder / name, folder, settings)
        inside = [file.partition("/")[2] for file in files if file.startswith(f"{name}/")]
        if inside:  # a folder that is missing is reported later
            variants.update(_check_files(component, inside, variant))
    check_variant(variant, variants)
    wanted = [INDEX, *_choose(files, variant)]
    return Path(snapshot_download(repository, revision=folder.name, allow_patterns=wanted))


def fetch_components(index: ModelIndex, settings: ModelSettings) -> dict[str, Path]:
    """Download the components whose setting is a Hub id; return their folders by component.

    A component is read from the folder of its name in the repository, if there is one, as in a
    whole pipeline; otherwise from the repository itself.

    Raises:
        UnsafeModelError: its weights are refused.
        ModelFolderError: its weights are missing.
        OSError: a file is neither in the cache nor available.
    """
    fetched = {}
    for name in index.components:
        hub_id = settings.component_hub_id(name)
        if hub_id is None:
            continue
        folder = Path(
            snapshot_download(
                hub_id.repository,
                revision=hub_id.revision or None,
                allow_patterns=["config.json", f"{name}/config.json"],
            )
        )
        fetched[name] = folder
        try:
            tree = get_cached_repo_tree(hub_id.repository, revision=folder.name)
        except CachedRepoTreeNotFoundError:
            continue
        paths = [file.path for file in tree]
        inside = [path for path in paths if path.startswith(f"{name}/")]
        files = inside or [path for path in paths if "/" not in path]
        home = folder / name if inside else folder
        component = make_component(index, name, home, folder, settings.components)
        _check_files(component, [file.rpartition("/")[2] for file in files], settings.variant)
        snapshot_download(
            hub_id.repository,
            revision=folder.name,
            allow_patterns=_choose(files, settings.variant),
        )
    return fetched


def _check_files(component: Component, names: list[str], variant: str | None) -> list[str]:
    """Check by names that a component can be loaded, and return the variants of its weights."""
    vet_weights(component, names)
    find_weights(component, names, variant)
    return list_variants(component, names)


def _choose(files: list[str], variant: str | None) -> list[str]:
    """Choose the files that loading reads: weights of the variant or without one, and texts."""
    safetensors = [file for file in files if ".safetensors" in file]
    try:
        weights, _ = variant_compatible_siblings(safetensors, variant=variant)
    except ValueError:  # none has the variant
        weights, _ = variant_compatible_siblings(safetensors)
    return [*weights, *(file for file in files if file.endswith(TEXTS))]
