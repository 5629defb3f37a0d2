"""Reading: finds the file of an adapter, checks it, and loads it for a pipeline.

Only safetensors and JSON are read, so that no code of an adapter runs.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError
from safetensors.torch import load_file

from safelight_service.engine.folders.errors import ModelFolderError, UnsafeModelError
from safelight_service.engine.folders.model_index import read_object
from safelight_service.engine.folders.weights import check_safetensors
from safelight_service.engine.lora.conversion import Config, convert
from safelight_service.engine.lora.lora import Lora
from safelight_service.engine.lora.naming import LoraError
from safelight_service.engine.models.digests import FileDigests
from safelight_service.engine.pipeline.adapter import find_denoiser_name
from safelight_service.settings import AdapterSettings

_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_PEFT_CONFIG = "adapter_config.json"
_METADATA = "lora_adapter_metadata"
"""Key of diffusers' options in the header of a file."""

_CHANGING_STARTS = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""Ways of PEFT to start a training that also change the weights of the model."""


def read_lora(
    settings: AdapterSettings,
    model_folder: Path,
    pipeline: Any,
    device: torch.device,
    digests: FileDigests,
) -> Lora:
    """Read an adapter for a pipeline to its device; download it first if its source is a Hub id.

    Raises:
        UnsafeModelError: reading it may run code.
        ModelFolderError: the file is missing or damaged.
        LoraError: it does not fit the model.
        OSError: a file is neither in the Hub's cache nor available.
    """
    file = find_file(settings, model_folder)
    check_safetensors(file, file.name)
    configs = _read_configs(file, find_denoiser_name(pipeline))
    files = [each for each in (file, file.with_name(_PEFT_CONFIG)) if each.is_file()]
    digest = hashlib.sha256("".join(digests.find(files)).encode()).hexdigest()
    return Lora(settings.name, digest, convert(load_file(file), configs, pipeline, device))


def find_file(settings: AdapterSettings, model_folder: Path) -> Path:
    """Return the file of an adapter; download it first if its source is a Hub id.

    Raises:
        UnsafeModelError: reading it may run code.
        ModelFolderError: the file is missing.
        OSError: the file is neither in the Hub's cache nor available.
    """
    if settings.is_on_hub:
        return _fetch(settings)
    folder = Path(settings.source) if settings.source else model_folder
    if not folder.is_dir():
        raise ModelFolderError(f"source: there is no folder {folder}")
    name = settings.file or _choose(path.name for path in folder.iterdir() if path.is_file())
    if not (folder / name).is_file():
        raise ModelFolderError(f"{name} is missing in the source")
    return folder / name


def _fetch(settings: AdapterSettings) -> Path:
    revision = settings.revision or None
    name = settings.file
    if not name:
        folder = snapshot_download(
            settings.source, revision=revision, allow_patterns=[_PEFT_CONFIG]
        )
        try:
            tree = get_cached_repo_tree(settings.source, revision=Path(folder).name)
            names = [file.path for file in tree]
        except CachedRepoTreeNotFoundError:  # offline, with a cache of an older huggingface_hub
            names = [path.name for path in Path(folder).iterdir()]
        name = _choose(path for path in names if "/" not in path)
    config = Path(name).with_name(_PEFT_CONFIG).as_posix()
    folder = snapshot_download(settings.source, revision=revision, allow_patterns=[name, config])
    if not (Path(folder) / name).is_file():
        raise ModelFolderError(f"{name} is missing in {settings.source}")
    return Path(folder) / name


def _choose(names: Iterable[str]) -> str:
    """Choose the file of an adapter among the names of the files in its source."""
    files = sorted(names)
    found = [name for name in files if name.endswith(".safetensors")]
    usual = [name for name in _USUAL_NAMES if name in found]
    if usual or len(found) == 1:
        return (usual or found)[0]
    if found:
        raise ModelFolderError(f"set file to one of: {', '.join(found)}")
    for name in files:
        if Path(name).suffix in (".bin", ".pt", ".pth", ".ckpt"):
            raise UnsafeModelError(name, "reading it may run code; an adapter must be safetensors")
    raise ModelFolderError("the source has no safetensors")


def _read_configs(file: Path, denoiser: str) -> Mapping[str, Config]:
    """Return the options of PEFT that a file names, by component."""
    config = file.with_name(_PEFT_CONFIG)
    if config.is_file():
        options = read_object(config, config.name)
        _check_kind(options)
        return {denoiser: options}
    with safetensors.safe_open(file, "pt") as opened:
        text = (opened.metadata() or {}).get(_METADATA)
    if text is None:
        return {}
    try:
        flat = dict(json.loads(text))
    except (RecursionError, TypeError, ValueError):
        raise LoraError(f"{_METADATA} in {file.name} is no JSON object") from None
    configs: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        component, _, option = name.partition(".")
        configs.setdefault(component, {})[option] = value
    for options in configs.values():
        _check_kind(options)
    return configs


def _check_kind(options: Config) -> None:
    kind = options.get("peft_type", "LORA")
    if kind not in ("LORA", "LOKR"):
        raise LoraError(f"it is a {kind}, which cannot be mixed; use a LoRA")
    start = str(options.get("init_lora_weights")).lower()
    if start.startswith(_CHANGING_STARTS):
        raise LoraError(f"it was trained from {start}, so it needs other weights of the model")
