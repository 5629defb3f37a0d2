"""Acceleration: makes a loaded pipeline faster or smaller, by its settings."""

import importlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import torch
from diffusers import attention_backend
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from safelight_service.engine.compilation.graphs import find_obstacle
from safelight_service.engine.merging.families import RULES, UNRECORDABLE
from safelight_service.engine.pipeline.adapter import find_denoiser_name
from safelight_service.settings import AccelerationSettings

_log = structlog.get_logger()

_INDUCTOR_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable of torch's cache of compiled code."""

_IMAGE_NDIM = 4
"""Dimensions of the weights of convolutions of images; those of videos have one more."""

_MASKLESS_BACKENDS = ("flash", "sage")
"""Parts of the names of attention backends that raise on any mask."""

_FP8_CAPABILITY = (8, 9)
"""Least CUDA compute capability with 8-bit floating point."""

_MASKS = ("encoder_hidden_states_mask", "encoder_attention_mask", "attention_mask")


class AccelerationError(Exception):
    """The pipeline or the device does not support a setting; the message says why."""


def accelerate(pipeline: Any, settings: AccelerationSettings, device: torch.device) -> None:
    """Move a pipeline to its device, and apply the acceleration settings.

    Raises:
        AccelerationError: the pipeline or the device does not support a setting.
        UnsupportedPipelineError: the pipeline has no denoiser.
    """
    name = find_denoiser_name(pipeline)
    denoiser = getattr(pipeline, name)
    if settings.quantization != "none":
        _quantize(denoiser, settings.quantization, device)
    _place(pipeline, settings.offload, device)
    if settings.channels_last:
        if name != "unet":
            raise _refusal(denoiser, "channels_last", "it has next to no convolutions")
        denoiser.to(memory_format=torch.channels_last)
    if settings.vae_channels_last:
        if any(weight.ndim > _IMAGE_NDIM for weight in pipeline.vae.parameters()):
            raise _refusal(pipeline.vae, "vae_channels_last", "its convolutions are of videos")
        pipeline.vae.to(memory_format=torch.channels_last)
    if settings.attention_backend is not None:
        _set_attention_backend(pipeline, denoiser, settings.attention_backend)
    if settings.vae_tiling:
        if not hasattr(pipeline.vae, "enable_tiling"):
            raise _refusal(pipeline.vae, "vae_tiling", "it cannot decode in tiles")
        pipeline.vae.enable_tiling()
    if settings.compile == "full":
        denoiser.compile(dynamic=True)
    elif settings.compile == "regional":
        if not getattr(denoiser, "_repeated_blocks", None):
            raise _refusal(denoiser, 'compile = "regional"', 'it names no blocks; try "full"')
        denoiser.compile_repeated_blocks(dynamic=True)
    elif settings.compile == "graphs":
        _check_graphs(type(pipeline).__name__, denoiser, device)


def keep_compiled(folder: Path | None) -> None:
    """Make torch keep compiled code in a folder, unless the environment names another.

    The folder holds code that is run, so only this user may write into it.
    """
    # torch sets the variable to its default as soon as it is imported.
    if folder is None or os.environ.get(_INDUCTOR_FOLDER) not in (None, default_cache_dir()):
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _log.warning("compile_cache_unwritable", path=str(folder), error=error.strerror)
        return
    os.environ[_INDUCTOR_FOLDER] = str(folder)


def _check_graphs(pipeline_class: str, denoiser: Any, device: torch.device) -> None:
    if device.type not in ("cpu", "cuda"):
        raise _refusal(denoiser, 'compile = "graphs"', f"{device.type} has none; use cuda or cpu")
    obstacle = UNRECORDABLE.get(pipeline_class) or find_obstacle(RULES.get(pipeline_class))
    if obstacle is not None:
        raise _refusal(denoiser, 'compile = "graphs"', f'{obstacle}; try "regional" or "full"')


def _place(pipeline: Any, offload: str, device: torch.device) -> None:
    if offload == "none":
        pipeline.to(device)
    elif device.type == "cpu":
        raise AccelerationError(f'offload = "{offload}" needs a device other than the CPU')
    elif offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        try:
            pipeline.enable_group_offload(onload_device=device, offload_type="leaf_level")
        except ValueError as reason:
            raise _refusal(pipeline, 'offload = "group"', str(reason)) from reason


def _set_attention_backend(pipeline: Any, denoiser: Any, backend: str) -> None:
    rule = RULES.get(type(pipeline).__name__, {})
    if any(part in backend for part in _MASKLESS_BACKENDS) and any(mask in rule for mask in _MASKS):
        raise _refusal(denoiser, f"attention_backend = {backend!r}", "it masks its text")
    processors = (getattr(module, "processor", None) for module in denoiser.modules())
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise _refusal(
            denoiser, f"attention_backend = {backend!r}", "its attention has no choice of backends"
        )
    try:
        with (
            attention_backend()
        ):  # restores the default, which set_attention_backend changes for all models
            denoiser.set_attention_backend(backend)
    except (AttributeError, RuntimeError, ValueError) as reason:
        raise _refusal(denoiser, f"attention_backend = {backend!r}", str(reason)) from reason


def _quantize(denoiser: Any, kind: str, device: torch.device) -> None:
    try:
        torchao: Any = importlib.import_module("torchao.quantization")
    except ImportError as reason:
        raise AccelerationError(
            f'quantization = "{kind}" needs torchao: install safelight-service[quantization]'
        ) from reason
    configs: dict[str, Callable[[], Any]] = {
        "int8": torchao.Int8WeightOnlyConfig,
        "fp8": lambda: torchao.Float8DynamicActivationFloat8WeightConfig(
            granularity=torchao.PerRow()
        ),
    }
    if kind == "fp8" and (
        device.type != "cuda" or torch.cuda.get_device_capability(device) < _FP8_CAPABILITY
    ):
        needed = ".".join(map(str, _FP8_CAPABILITY))
        raise AccelerationError(
            f'quantization = "fp8" needs a GPU of compute capability {needed} or more'
        )
    torchao.quantize_(denoiser.to(device), configs[kind]())


def _refusal(module: Any, setting: str, reason: str) -> AccelerationError:
    return AccelerationError(f"{type(module).__name__} cannot have {setting}: {reason}")
