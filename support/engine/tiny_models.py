"""The tiny pipelines as models that the service has loaded."""

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from safelight_service.engine.batching.batch_profile import ProfileStore
from safelight_service.engine.compilation.graphs import BucketedForward
from safelight_service.engine.models.loading import LoadedModel, load_model
from safelight_service.engine.pipeline.adapter import PipelineAdapter
from safelight_service.settings import (
    BatchingSettings,
    DefaultSettings,
    LimitSettings,
    ModelSettings,
)
from support.pipelines.families import make_pipeline

MERGING = BatchingSettings(max_width=8)
"""Merges as wide as the tests need, with no width measured."""

DEFAULTS = {"hidream": DefaultSettings(width=256, height=256)}
"""Where the pipeline's own size is more than the tiny denoiser makes."""


class TinyModels:
    """Loaded models by family, each saved and loaded only once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, LoadedModel] = {}

    def __getitem__(self, family: str) -> LoadedModel:
        """The family's model."""
        if family not in self._loaded:
            self._loaded[family] = load_model(self.settings(family), MERGING)
        return self._loaded[family]

    def settings(self, family: str) -> ModelSettings:
        """Settings that serve the family's model."""
        return ModelSettings(
            name=family,
            source=str(self.folder(family)),
            device="cpu",
            warm_up=False,
            defaults=DEFAULTS.get(family, DefaultSettings()),
        )

    def folder(self, family: str) -> Path:
        """The folder that the family's pipeline was saved to."""
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
    """Load a pipeline that is in memory once more, with nothing known of it."""
    adapter = PipelineAdapter(pipeline, LimitSettings(), DefaultSettings())
    return LoadedModel("tiny", "", identity, adapter, batching, store or ProfileStore(None), graphs)
