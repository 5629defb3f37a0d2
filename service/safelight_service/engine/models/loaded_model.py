"""LoadedModel: a pipeline in memory, with what the batcher needs to run it."""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from safelight_service.core.model import AdapterInfo
from safelight_service.engine.batching.estimates.batch_profile import ProfileStore
from safelight_service.engine.batching.estimates.cost_model import CostModel
from safelight_service.engine.compilation.graphs import BucketedForward
from safelight_service.engine.hardware import describe
from safelight_service.engine.lora.lora import Mixture
from safelight_service.engine.lora.mixer import Mixer
from safelight_service.engine.merging.families import ROWLESS, RULES
from safelight_service.engine.merging.merger import Merger
from safelight_service.engine.models.reuse_curves import Curves
from safelight_service.engine.operations import Forward
from safelight_service.engine.pipeline.adapter import PipelineAdapter
from safelight_service.engine.pipeline.preview import LatentColours
from safelight_service.engine.pipeline.prompt_cache import Memo, count_bytes
from safelight_service.engine.pipeline.proxies import PipelineCopies, wrap_text_encoders
from safelight_service.engine.pipeline.safety_check import SafetyChecker, guard
from safelight_service.settings import (
    BatchingSettings,
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
        *,
        folder: Path = Path(),
        adapters: tuple[AdapterInfo, ...] = (),
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
        self.capabilities = replace(
            adapter.capabilities(has_previews=self.latent_colours is not None), adapters=adapters
        )
        self.folder = folder
        self.denoiser = adapter.denoiser
        rule = RULES.get(type(adapter.pipeline).__name__)
        self.merger = Merger(self.denoiser, rule)
        self._mixer = Mixer(adapter.denoiser_name, self.denoiser)
        self._rowless = ROWLESS.get(type(adapter.pipeline).__name__, ())
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
        self._most_members = find_most_members(batching) if rule else 1
        self.size_bytes = sum(
            count_bytes([*module.parameters(), *module.buffers()])
            for module in adapter.pipeline.components.values()
            if isinstance(module, torch.nn.Module)
        )
        self._graphs = graphs
        self._forward: Callable[..., Any] = graphs or self.denoiser
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

    def run(self, forwards: Sequence[Forward]) -> list[Any]:
        """Run forwards with equal keys as one, each with its adapters; return their outputs."""
        forward = self._forward
        if any(each.mixture.parts for each in forwards):
            # Compiled code would leave out the hooks of adapters.
            is_compiled = self._graphs is not None or self.denoiser._compiled_call_impl is not None
            forward = self.denoiser.forward if is_compiled else self.denoiser
        mixtures = [each.mixture for each in forwards]
        with self._mixer.applied(mixtures, [each.row_count for each in forwards]):
            return self.merger.run(forward, [each.arguments for each in forwards])

    def adapters_key(self, mixture: Mixture) -> Hashable:
        """Return a key that is equal for images whose adapters can share a forward."""
        component = self.adapter.denoiser_name
        is_rowless = bool(self._rowless) and any(
            part in name
            for part in self._rowless
            for lora, _ in mixture.of(component)
            for name in lora.effects[component]
        )
        return mixture.recipe(component) if is_rowless else None

    def forget_adapters(self) -> None:
        """Release copies of adapters that were used last; safe to call from any thread."""
        self._mixer.forget()
        for encoder in self.text_encoders.values():
            encoder.forget_adapters()

    def is_ready_for(self, forward: Forward) -> bool:
        """Whether a forward can run without `prepare`."""
        if self._graphs is None or forward.mixture.parts:
            return True
        return self._graphs.is_ready(forward.arguments)

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


def find_most_members(batching: BatchingSettings) -> int | None:
    """Return the most images of a forward; None lets measurements decide."""
    return 1 if batching.deterministic else batching.max_width


def casts_vae(pipeline: Any) -> bool:
    """Whether a pipeline brings a VAE in float16 to float32: SDXL, AuraFlow and Kolors may."""
    return hasattr(pipeline, "upcast_vae") and bool(pipeline.vae.config.get("force_upcast"))


def _find_vae_dtype(pipeline: Any, denoiser: Any) -> torch.dtype:
    was_cast = denoiser.dtype == torch.float16 and casts_vae(pipeline)
    dtype: torch.dtype = torch.float16 if was_cast else pipeline.vae.dtype
    return dtype
