"""Tiny models: the tiny pipelines, loaded as the service loads models."""

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from safelight_service.engine.batching.estimates.batch_profile import ProfileStore
from safelight_service.engine.compilation.graphs import BucketedForward
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.loading import load_model
from safelight_service.engine.pipeline.adapter import PipelineAdapter
from safelight_service.settings import (
    BatchingSettings,
    DefaultSettings,
    LimitSettings,
    ModelSettings,
)
from support.pipelines.families import make_pipeline

MERGING = BatchingSettings(max_width=8)
"""Widths that suffice for the tests, without measuring."""

DEFAULTS = {"hidream": DefaultSettings(width=256, height=256)}
"""Default sizes for families whose own default is too large for the tiny denoiser."""


class TinyModels:
    """Loaded models by family, each saved and loaded once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, LoadedModel] = {}

    def __getitem__(self, family: str) -> LoadedModel:
        """Return a family's model."""
        if family not in self._loaded:
            self._loaded[family] = load_model(self.settings(family), MERGING)
        return self._loaded[family]

    def settings(self, family: str) -> ModelSettings:
        """Return settings that serve a family's model."""
        return ModelSettings(
            name=family,
            source=str(self.folder(family)),
            device="cpu",
            warm_up=False,
            defaults=DEFAULTS.get(family, DefaultSettings()),
        )

    def folder(self, family: str) -> Path:
        """Return the folder of a family's saved pipeline."""
        folder = self._folder / family
        if not folder.exists():
            make_pipeline(family).save_pretrained(folder)
        return folder


def reload(
    pipeline: DiffusionPipeline,
    batching: BatchingSettings = MERGING,
    store: Any = None,
    identity: str = "",
    graphs: BucketedForward | None = None,
) -> LoadedModel:
    """Load a pipeline from memory as a new model, without anything measured before."""
    adapter = PipelineAdapter(pipeline, LimitSettings(), DefaultSettings())
    return LoadedModel("tiny", "", identity, adapter, batching, store or ProfileStore(None), graphs)
