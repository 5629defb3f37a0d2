"""Loading: from a model's settings to a pipeline that is ready to run."""

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from safelight_service.capabilities import Capabilities
from safelight_service.engine.adapter import PipelineAdapter
from safelight_service.engine.preview import LatentColours
from safelight_service.settings import EMBEDDED_MODEL, ModelSettings

_HUB_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})/?$")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A pipeline in memory, and what is known of it."""

    name: str
    revision: str
    adapter: PipelineAdapter
    capabilities: Capabilities
    latent_colours: LatentColours | None


def load_model(settings: ModelSettings) -> LoadedModel:
    """Load a model from safetensors, without running any code that comes with it.

    Raises:
        OSError: a file is missing.
        ValueError: the folder is not a diffusers pipeline.
        UnsupportedPipelineError: it is not an ordinary text-to-image pipeline.
    """
    device = _choose_device(settings.device)
    source = _locate(settings.source)
    pipeline = DiffusionPipeline.from_pretrained(
        source,
        revision=(settings.revision or None) if not Path(source).is_dir() else None,
        variant=settings.variant,
        dtype=_choose_dtype(settings.dtype, device),
        use_safetensors=True,
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    adapter = PipelineAdapter(pipeline, settings.limits, settings.defaults)
    latent_colours = LatentColours.fit(pipeline)
    return LoadedModel(
        name=settings.name,
        revision=_find_revision(settings, pipeline),
        adapter=adapter,
        capabilities=adapter.capabilities(has_previews=latent_colours is not None),
        latent_colours=latent_colours,
    )


def silence_libraries() -> None:
    """Keep the progress bars and the advice of diffusers and transformers out of the log."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _locate(source: str) -> str:
    if source == EMBEDDED_MODEL:
        return str(resources.files("safelight_service") / "models" / EMBEDDED_MODEL)
    return source


def _find_revision(settings: ModelSettings, pipeline: DiffusionPipeline) -> str:
    snapshot = _HUB_SNAPSHOT.search(str(pipeline.config.get("_name_or_path", "")))
    return snapshot[1] if snapshot else settings.revision


def _choose_device(setting: str) -> torch.device:
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(setting)


def _choose_dtype(setting: str, device: torch.device) -> torch.dtype:
    if setting == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, setting)
    return dtype
