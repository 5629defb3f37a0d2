"""Loading: makes a pipeline that is ready to run from a model's settings."""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers

from safelight_service.core.observer import Compilation
from safelight_service.engine.batching.estimates.batch_profile import ProfileStore
from safelight_service.engine.batching.estimates.cost_model import CostModel
from safelight_service.engine.compilation.buckets import list_widths
from safelight_service.engine.compilation.graphs import BucketedForward
from safelight_service.engine.folders.assembly import assemble
from safelight_service.engine.folders.components import Component, find_components
from safelight_service.engine.folders.errors import ModelFolderError, explain
from safelight_service.engine.folders.fetching import fetch_components, find_folder
from safelight_service.engine.folders.model_index import read_index
from safelight_service.engine.hardware import describe, explain_absence, indexed, synchronize
from safelight_service.engine.merging.families import RULES
from safelight_service.engine.merging.merger import Merger
from safelight_service.engine.models.acceleration import accelerate
from safelight_service.engine.models.digests import FileDigests
from safelight_service.engine.models.identity import digest_files, find_commit, identify
from safelight_service.engine.models.reuse_curves import Curves, ReuseCurves
from safelight_service.engine.operations import Forward
from safelight_service.engine.pipeline.adapter import PipelineAdapter
from safelight_service.engine.pipeline.preview import LatentColours
from safelight_service.engine.pipeline.prompt_cache import Memo, count_bytes
from safelight_service.engine.pipeline.proxies import PipelineCopies, wrap_text_encoders
from safelight_service.engine.pipeline.safety_check import SafetyChecker, guard
from safelight_service.settings import (
    BatchingSettings,
    ConfigurationError,
    LimitSettings,
    ModelSettings,
)


class LoadedModel:
    """A pipeline in memory, with its merger, cost models and capabilities."""

    def __init__(
        self,
        name: str,
        revision: str,
        identity: str,
        adapter: PipelineAdapter,
        batching: BatchingSettings,
        profiles: ProfileStore,
        graphs: BucketedForward | None = None,
        reuse_curves: Curves = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.revision = revision
        self._weights_identity = identity
        self.reuse_curves = reuse_curves
        """Calibrated errors of step reuse, by scheduler."""
        self.identity = json.dumps([identity, reuse_curves]) if reuse_curves else identity
        """Text that is equal for models whose images have the same bytes."""
        self.adapter = adapter
        self.latent_colours = LatentColours.fit(adapter.pipeline)
        self.capabilities = adapter.capabilities(has_previews=self.latent_colours is not None)
        self.denoiser = adapter.denoiser
        rule = RULES.get(type(adapter.pipeline).__name__)
        self.merger = Merger(self.denoiser, rule)
        self.vae_dtype = _find_vae_dtype(adapter.pipeline, self.denoiser)
        """Precision of the VAE as its pipeline loads it."""
        self.safety_checker = SafetyChecker.of(adapter.pipeline)
        own_checker = getattr(adapter.pipeline, "safety_checker", None)
        if self.safety_checker is None and own_checker is not None:
            guard(own_checker)
        self.copies = PipelineCopies(adapter.pipeline)
        self.text_encoders = wrap_text_encoders(
            adapter.pipeline, Memo(batching.prompt_cache_mib << 20)
        )
        self._most_members = _find_most_members(batching) if rule else 1
        self.size_bytes = sum(
            count_bytes([*module.parameters(), *module.buffers()])
            for module in adapter.pipeline.components.values()
            if isinstance(module, torch.nn.Module)
        )
        self._graphs = graphs
        self.forward: Callable[..., Any] = graphs or self.denoiser
        """Runs a merged forward of the denoiser."""
        self._profiles = profiles
        self._cost_models: dict[tuple[int, int], CostModel] = {}

    def cost_model(self, width: int, height: int) -> CostModel:
        """Return the measured costs of the model at a size in pixels."""
        size = width, height
        if size not in self._cost_models:
            place = self._profile_key, math.prod(size)
            keep = functools.partial(self._profiles.put, *place)
            self._cost_models[size] = CostModel(size, self._most_members, keep)
            self._cost_models[size].recall(self._profiles.get(*place) or {})
        return self._cost_models[size]

    def is_ready_for(self, forward: Forward) -> bool:
        """Whether a forward can run without `prepare`."""
        return self._graphs is None or self._graphs.is_ready(forward.arguments)

    def prepare(self, cost_model: CostModel, forward: Forward) -> None:
        """Compile one more width for forwards of this shape, which may take minutes."""
        assert self._graphs is not None
        self._graphs.prepare(forward.arguments)
        self.limit(cost_model, forward)

    def limit(self, cost_model: CostModel, forward: Forward) -> None:
        """Limit merging to the rows that are prepared for forwards of this shape, if any are."""
        profile = self._graphs.profile(forward.arguments) if self._graphs is not None else {}
        if profile:
            cost_model.set_cap(max(profile))
        for row_count, seconds in profile.items():
            if seconds is not None and not cost_model.knows(row_count):
                cost_model.note_forward(row_count, seconds)

    @functools.cached_property
    def _profile_key(self) -> str:
        """Key of everything that affects the time of a forward, except the size of the image."""
        digest = hashlib.sha256(self._weights_identity.encode()).hexdigest()[:16]
        return ", ".join((self.name, digest, describe(self.adapter.execution_device)))


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
        ConfigurationError: torch cannot use the device on this machine.
    """
    batching = batching or BatchingSettings()
    device = choose_device(settings.device)
    dtype = _choose_dtype(settings.dtype, device)
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
        most_members = _find_most_members(batching)
        graphs = BucketedForward(
            adapter.denoiser,
            RULES[type(pipeline).__name__],
            adapter.execution_device,
            list_widths(most_members),
            is_measured=most_members is None,
            model=settings.name,
            note=note_compilation,
        )
    model = LoadedModel(
        settings.name,
        find_commit(folder) or settings.revision,
        identity,
        adapter,
        batching,
        profiles or ProfileStore(None),
        graphs,
        reuse_curves.get(identity) if reuse_curves else {},
    )
    synchronize(device)  # before other threads use it on their streams
    return model


def silence_libraries() -> None:
    """Turn off progress bars and advice of diffusers and transformers."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _limit(limits: LimitSettings, batching: BatchingSettings) -> LimitSettings:
    """Return the limits, without step reuse in the deterministic mode."""
    return limits.model_copy(update={"max_step_reuse": 0.0}) if batching.deterministic else limits


def _find_most_members(batching: BatchingSettings) -> int | None:
    """Return the most images of a forward; None lets measurements decide."""
    return 1 if batching.deterministic else batching.max_width


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
    if _casts_vae(pipeline) and pipeline.vae.dtype == torch.float16:
        pipeline.vae.to(torch.float32)


def _casts_vae(pipeline: Any) -> bool:
    """Whether a pipeline brings a VAE in float16 to float32: SDXL, AuraFlow and Kolors may."""
    return hasattr(pipeline, "upcast_vae") and bool(pipeline.vae.config.get("force_upcast"))


def _find_vae_dtype(pipeline: Any, denoiser: Any) -> torch.dtype:
    was_cast = denoiser.dtype == torch.float16 and _casts_vae(pipeline)
    dtype: torch.dtype = torch.float16 if was_cast else pipeline.vae.dtype
    return dtype


def choose_device(setting: str) -> torch.device:
    """Return the device of a model's setting.

    Raises:
        ConfigurationError: torch cannot use it on this machine.
    """
    check_device(setting)
    if setting == "auto":
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    return indexed(torch.device(setting))


def check_device(setting: str) -> None:
    """Check that torch can use the device that a model's setting names.

    Raises:
        ConfigurationError: it cannot, on this machine.
    """
    reason = None if setting == "auto" else explain_absence(torch.device(setting))
    if reason is not None:
        raise ConfigurationError(
            f'device: cannot use "{setting}", since {reason}; "cpu" and "auto" always work'
        )


def _choose_dtype(setting: str, device: torch.device) -> torch.dtype:
    if setting == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, setting)
    return dtype
