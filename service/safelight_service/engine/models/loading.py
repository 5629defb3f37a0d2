"""Loading: makes a pipeline that is ready to run from a model's settings."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from safelight_service.core.model import AdapterInfo
from safelight_service.core.observer import Compilation
from safelight_service.engine.batching.estimates.batch_profile import ProfileStore
from safelight_service.engine.compilation.buckets import list_widths
from safelight_service.engine.compilation.graphs import BucketedForward
from safelight_service.engine.folders.assembly import assemble
from safelight_service.engine.folders.components import Component, find_components
from safelight_service.engine.folders.errors import ModelFolderError, explain
from safelight_service.engine.folders.fetching import fetch_components, find_folder
from safelight_service.engine.folders.model_index import read_index
from safelight_service.engine.hardware import synchronize
from safelight_service.engine.lora.conversion import check_pipeline
from safelight_service.engine.merging.families import RULES
from safelight_service.engine.models.acceleration import accelerate
from safelight_service.engine.models.digests import FileDigests
from safelight_service.engine.models.identity import digest_files, find_commit, identify
from safelight_service.engine.models.loaded_model import LoadedModel, casts_vae, find_most_members
from safelight_service.engine.models.placement import choose_device, choose_dtype
from safelight_service.engine.models.reuse_curves import ReuseCurves
from safelight_service.engine.pipeline.adapter import PipelineAdapter
from safelight_service.settings import (
    AdapterSettings,
    BatchingSettings,
    LimitSettings,
    ModelSettings,
)


def load_model(
    settings: ModelSettings,
    batching: BatchingSettings | None = None,
    profiles: ProfileStore | None = None,
    note_compilation: Callable[[Compilation], None] | None = None,
    digests: FileDigests | None = None,
    reuse_curves: ReuseCurves | None = None,
) -> LoadedModel:
    """Load a model from safetensors, without running code from its folder.

    Raises:
        UnsafeModelError: a file might run code.
        ModelFolderError: the folder is not a diffusers pipeline, or a component cannot be loaded.
        ImportError: a component needs a library that is not installed.
        OSError: a file is neither in the Hub's cache nor available.
        UnsupportedPipelineError: the pipeline is not an ordinary text-to-image pipeline.
        AccelerationError: the pipeline or the device does not support a setting.
        LoraError: the pipeline takes no adapters.
        ConfigurationError: torch cannot use the device on this machine.
    """
    batching = batching or BatchingSettings()
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    folder = find_folder(settings)
    index = read_index(folder, settings.components)
    fetched = fetch_components(index, settings)
    components = find_components(index, folder, settings.components, fetched)
    replacements = [each.folder for each in components if each.replaced_by is not None]
    with ThreadPoolExecutor(1, thread_name_prefix="safelight-digest") as reader:
        # Both read the same files, which the system then reads from the disk once.
        reading = reader.submit(_digest, [folder, *replacements], digests or FileDigests())
        pipeline = assemble(index, components, folder, settings.variant, dtype)
    identity = _identify(settings, folder, components, pipeline, dtype, device, reading.result())
    _upcast_vae(pipeline)
    accelerate(pipeline, settings.acceleration, device)
    pipeline.set_progress_bar_config(disable=True)
    if settings.acceleration.offload != "none":
        batching = batching.model_copy(update={"max_width": 1})
    try:
        adapter = PipelineAdapter(pipeline, _limit(settings.limits, batching), settings.defaults)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelFolderError(
            f"cannot serve this {type(pipeline).__name__}: {explain(error)}; check the "
            "configurations of its components"
        ) from error
    graphs = None
    if settings.acceleration.compile == "graphs":
        most_members = find_most_members(batching)
        graphs = BucketedForward(
            adapter.denoiser,
            RULES[type(pipeline).__name__],
            adapter.execution_device,
            list_widths(most_members),
            is_measured=most_members is None,
            model=settings.name,
            note=note_compilation,
        )
    if settings.adapters:
        check_pipeline(pipeline)
    model = LoadedModel(
        settings.name,
        find_commit(folder) or settings.revision,
        identity,
        adapter,
        batching,
        profiles or ProfileStore(None),
        graphs,
        reuse_curves.get(identity) if reuse_curves else {},
        folder=folder,
        adapters=tuple(_describe(each) for each in settings.adapters),
    )
    synchronize(device)  # before other threads use it on their streams
    return model


def _describe(settings: AdapterSettings) -> AdapterInfo:
    return AdapterInfo(
        settings.name,
        settings.description,
        settings.default_scale,
        settings.min_scale,
        settings.max_scale,
    )


def silence_libraries() -> None:
    """Turn off progress bars and advice of diffusers and transformers."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _limit(limits: LimitSettings, batching: BatchingSettings) -> LimitSettings:
    """Return the limits, without step reuse in the deterministic mode."""
    return limits.model_copy(update={"max_step_reuse": 0.0}) if batching.deterministic else limits


def _identify(
    settings: ModelSettings,
    folder: Path,
    components: Sequence[Component],
    pipeline: Any,
    dtype: torch.dtype,
    device: torch.device,
    digests: Mapping[Path, str],
) -> str:
    """Return the identity of a model, with those of the components that are not its own.

    `digests` has the result of `digest_files` for each folder.
    """

    def identify_folder(path: Path) -> str:
        return identify(settings, path, type(pipeline).__name__, dtype, device, digests[path])

    identity = identify_folder(folder)
    if not settings.components:
        return identity
    facts: dict[str, object] = dict(settings.components)
    for component in components:
        if component.replaced_by is not None:
            facts[component.name] = identify_folder(component.folder)
    return json.dumps({"model": identity, "components": facts}, sort_keys=True)


def _digest(folders: Iterable[Path], digests: FileDigests) -> dict[Path, str]:
    return {folder: digest_files(folder, digests) for folder in folders}


def _upcast_vae(pipeline: Any) -> None:
    """Cast a VAE that overflows in float16 to float32, if its pipeline would do so itself.

    Such pipelines cast it before they decode, and some cast it back, which would disturb others
    that share it.
    """
    if casts_vae(pipeline) and pipeline.vae.dtype == torch.float16:
        pipeline.vae.to(torch.float32)
