"""Weights: the safetensors that a component is read from, found and checked to be whole."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from safelight_service.engine.folders.components import DIFFUSERS_STEM, Component, find_stem
from safelight_service.engine.folders.errors import ModelFolderError
from safelight_service.engine.folders.model_index import read_object
from safelight_service.engine.folders.vetting import read_shards

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_POINTER_BYTES = 1024
_HEADER_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""More than safetensors itself reads."""
_INTEGERS = ("BOOL", "I", "U")
"""Beginnings of the names of dtypes that weights have only if they are quantized."""
_SCALES = re.compile(r"(^|[._])(scale_weight|weight_scale(_inv)?|scaled_fp8)$")
"""Names of tensors by which weights in 8 bits were scaled."""


def find_weights(component: Component, names: Collection[str], variant: str | None) -> str | None:
    """Find the file that a component's weights are read from: safetensors, or an index of shards.

    Args:
        component: a component that may have weights.
        names: names of the files in its folder.
        variant: the setting `variant`. Weights without a variant stand in for it.

    Returns:
        The file's name; None for a component without weights.

    Raises:
        ModelFolderError: there are none; the message names the variants that there are.
    """
    stem = find_stem(component.component_class)
    if stem is None:
        return None
    for each in (variant, None):
        for name in _list_names(stem, each):
            if name in names:
                return name
    variants = list_variants(component, names)
    where = component.describe(f"{stem}.safetensors")
    if variants:
        choices = " or ".join(f'variant = "{each}"' for each in variants)
        raise ModelFolderError(
            f"{where} is missing, but there are weights of another variant: set {choices}"
        )
    raise ModelFolderError(f"{where} is missing; download it, or {component.advice}")


def list_variants(component: Component, names: Iterable[str]) -> list[str]:
    """Return the variants of a component's weights, by the names of its files."""
    stem = find_stem(component.component_class)
    if stem is None:
        return []
    patterns = [
        re.compile(rf"{stem}\.([\w-]+?)(-\d{{5}}-of-\d{{5}})?\.safetensors"),
        re.compile(rf"{stem}\.safetensors\.index\.([\w-]+)\.json"),
    ]
    found = (pattern.fullmatch(name) for name in names for pattern in patterns)
    return sorted({match[1] for match in found if match})


def check_variant(variant: str | None, variants: Collection[str]) -> None:
    """Check that some component has weights of the variant that the settings name.

    Raises:
        ModelFolderError: none has.
    """
    if variant is not None and variant not in variants:
        there_are = f"there are {', '.join(sorted(variants))}" if variants else "there are none"
        raise ModelFolderError(
            f'variant = "{variant}": no component has weights of it ({there_are}); '
            "leave variant out for those without one"
        )


def check_whole(component: Component, file: str) -> None:
    """Check that the weights of a component are there and whole.

    Args:
        component: the component.
        file: what `find_weights` found.

    Raises:
        ModelFolderError: a file is missing, empty, cut off or a pointer of Git LFS.
    """
    if file.endswith(".safetensors"):
        _check_component_file(component, file)
        return
    for shard in read_shards(component.folder / file, component.describe(file)):
        if not (component.folder / shard).is_file():
            raise ModelFolderError(
                f"{component.describe(shard)} is missing, but {file} names it; download it"
            )
        _check_component_file(component, shard)


def check_pointer(path: Path, where: str) -> None:
    """Check that a file is not a pointer of Git LFS; `where` stands for it in the error.

    Raises:
        ModelFolderError: it is one.
    """
    is_small = path.stat().st_size <= _MAX_POINTER_BYTES
    if is_small and path.read_bytes().startswith(_LFS_POINTER):
        raise ModelFolderError(
            f"{where} is a pointer of Git LFS, not the file itself; run git lfs pull in its folder"
        )


def _list_names(stem: str, variant: str | None) -> list[str]:
    """Return the names of both forms, in the order in which the library looks for them."""
    part = "" if variant is None else f".{variant}"
    names = [f"{stem}.safetensors.index{part}.json", f"{stem}{part}.safetensors"]
    return names if stem == DIFFUSERS_STEM else names[::-1]


def check_safetensors(path: Path, where: str) -> Mapping[str, str]:
    """Check that a file of safetensors is whole; return the dtype of each tensor.

    Args:
        path: the file.
        where: stands for it in the error.

    Raises:
        ModelFolderError: it is unreadable, empty, cut off or a pointer of Git LFS.
    """
    try:
        check_pointer(path, where)
        size = path.stat().st_size
        expected, tensors = _read_header(path, size)
    except OSError as error:
        raise ModelFolderError(f"{where} cannot be read: {error.strerror}") from None
    if size == 0:
        raise ModelFolderError(f"{where} is empty; download it again")
    if expected is None:
        raise ModelFolderError(f"{where} is no safetensors file; download it again")
    if size < expected:
        raise ModelFolderError(
            f"{where} has only {size:,} of {expected:,} bytes; download it again"
        )
    if size > expected:
        raise ModelFolderError(
            f"{where} has {size:,} bytes, not the {expected:,} of its header; download it again"
        )
    return tensors


def _check_component_file(component: Component, file: str) -> None:
    where = component.describe(file)
    _check_precision(component, where, check_safetensors(component.folder / file, where))


def _check_precision(component: Component, where: str, tensors: Mapping[str, str]) -> None:
    """Check that weights are numbers of floating point, unless the configuration explains them.

    Libraries would take quantized weights for the weights themselves, and draw a wrong picture.
    """
    is_scaled = any(_SCALES.search(name) for name in tensors)
    quantized = [
        (name, dtype)
        for name, dtype in tensors.items()
        if name.endswith("weight")
        and (dtype.startswith(_INTEGERS) or (is_scaled and dtype.startswith("F8")))
    ]
    if quantized and not _names_quantization(component):
        name, dtype = quantized[0]
        raise ModelFolderError(
            f"{where} holds {name} as {dtype}, and no configuration says how it was quantized; "
            f"use weights that are not quantized, or set components.{component.name} to such ones"
        )


def _names_quantization(component: Component) -> bool:
    file = component.folder / "config.json"
    return file.is_file() and bool(
        read_object(file, component.describe(file.name)).get("quantization_config")
    )


def _read_header(path: Path, size: int) -> tuple[int | None, Mapping[str, str]]:
    """Return the bytes that a file should have by its header, and the dtype of each tensor.

    The size is None if the file is no safetensors.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        start = _HEADER_LENGTH_BYTES + length
        if length > _MAX_HEADER_BYTES:
            return None, {}
        if size < start:
            return start, {}
        try:
            header = json.loads(file.read(length))
            tensors = {key: each for key, each in header.items() if key[:2] != "__"}
            ends = [each["data_offsets"][1] for each in tensors.values()]
            dtypes = {key: str(each["dtype"]) for key, each in tensors.items()}
        except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
            return None, {}
    if not all(isinstance(end, int) for end in ends):
        return None, {}
    return start + max(ends, default=0), dtypes
