"""Completeness: refuses components that lack files, before any of their weights are read."""

import json
import math
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import transformers

from safelight_service.engine.folders.components import Component
from safelight_service.engine.folders.errors import ModelFolderError
from safelight_service.engine.folders.model_index import read_json, read_object
from safelight_service.engine.folders.weights import check_pointer

TEXTS = (".jinja", ".json", ".model", ".txt")
"""Ends of the names of configurations and vocabularies."""

_MAX_CONFIG_BYTES = 1 << 20
"""JSON beyond this size is a vocabulary, which is not read twice."""

_OBJECTS = (
    "added_tokens.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""JSON files that libraries read as objects, besides the configuration itself."""

_ANY_VOCABULARY = ("tekken.json", "tiktoken.model", "tokenizer.model")

_QUANTIZERS = {
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "gguf": ("gguf", "gguf"),
    "quanto": ("optimum.quanto", "optimum-quanto"),
    "torchao": ("torchao", "torchao"),
}
"""Module and package of each method of quantization that a configuration may name."""


def check_completeness(component: Component) -> None:
    """Check the configurations and vocabularies of a component.

    Raises:
        ModelFolderError: a file is missing, is a pointer of Git LFS, or is not JSON; or the
            configuration needs a package that is not installed.
    """
    files = sorted(path for path in component.folder.iterdir() if not path.is_dir())
    for path in files:
        if path.name.endswith(TEXTS):
            _check_text(component, path)
    names = {path.name for path in files}
    _check_configuration(component, names)
    if issubclass(component.component_class, transformers.PreTrainedTokenizerBase):
        _check_vocabulary(component, names)


def _check_text(component: Component, path: Path) -> None:
    where = component.describe(path.name)
    if not path.exists():
        raise ModelFolderError(
            f"{where} is a link to {path.readlink()}, which does not exist; download it again"
        )
    if not path.is_file():  # reading a pipe would wait for its writer
        raise ModelFolderError(f"{where} is no ordinary file; remove it, or {component.advice}")
    check_pointer(path, where)
    if path.suffix == ".json" and path.stat().st_size <= _MAX_CONFIG_BYTES:
        read = read_object if path.name in _OBJECTS else read_json
        read(path, where)


def _check_configuration(component: Component, names: Collection[str]) -> None:
    found = component.component_class
    if issubclass(found, transformers.PreTrainedModel):
        name = "config.json"
    elif issubclass(found, diffusers.ConfigMixin):
        name = found.config_name
    else:
        return
    where = component.describe(name)
    if name not in names:
        raise ModelFolderError(f"{where} is missing; download it, or {component.advice}")
    config = read_object(component.folder / name, where)
    _check_class(component, where, config)
    _check_quantization(component, where, config)
    if component.name == "vae":
        _check_scale(component, where, config)


def _check_class(component: Component, where: str, config: Mapping[str, Any]) -> None:
    """Check that a component in place of the model's own is of the class that the model needs."""
    class_name = config.get("_class_name", component.class_name)
    is_model = issubclass(component.component_class, diffusers.ModelMixin)
    if component.replaced_by is not None and is_model and class_name != component.class_name:
        raise ModelFolderError(
            f"{where} is that of a {class_name}; the model needs a {component.class_name}"
        )


def _check_scale(component: Component, where: str, config: Mapping[str, Any]) -> None:
    """Check the numbers by which pipelines scale latents; others would give no picture."""
    for key, may_be_zero in (("scaling_factor", False), ("shift_factor", True)):
        value = config.get(key)
        if value is None and (key not in config or key == "shift_factor"):
            continue
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if not is_number or not (value or may_be_zero):
            raise ModelFolderError(
                f"{where}: {key} must be a number{'' if may_be_zero else ' other than 0'}, "
                f"not {json.dumps(value)}; download it again, or {component.advice}"
            )


def _check_quantization(component: Component, where: str, config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if not isinstance(quantization, Mapping):
        return
    method = quantization.get("quant_method")
    if method is None and (quantization.get("load_in_4bit") or quantization.get("load_in_8bit")):
        method = "bitsandbytes"
    module, package = _QUANTIZERS.get(str(method), (None, None))
    if module is not None and not _is_installed(module):
        raise ModelFolderError(
            f"{where} asks for quantization by {method}: install {package}, or set "
            f"components.{component.name} to a folder or Hub id that is not quantized"
        )


def _check_vocabulary(component: Component, names: Collection[str]) -> None:
    """Check that a tokenizer has a whole vocabulary: without one, some load and read nothing."""
    wanted = dict(component.component_class.vocab_files_names)
    whole = wanted.pop("tokenizer_file", None)
    if whole in names or any(name.startswith(_ANY_VOCABULARY) for name in names):
        return
    missing = [name for name in wanted.values() if name not in names]
    if missing or (whole and not wanted):  # ByT5 has no vocabulary at all
        forms = [form for form in (whole, " and ".join(wanted.values())) if form]
        raise ModelFolderError(
            f"{component.describe(missing[0] if missing else str(whole))} is missing: "
            f"the tokenizer needs {', or '.join(forms)}; download it, or {component.advice}"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False
