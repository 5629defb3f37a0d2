"""Rehearsed schedulers: those of the embedded model, for all processes forked after the import."""

from importlib import resources

from diffusers import DDIMScheduler, StableDiffusionPipeline

from safelight_service.engine.sampling.schedulers import SchedulerChoice
from safelight_service.settings import EMBEDDED_MODEL

_FOLDER = resources.files("safelight_service") / "models" / EMBEDDED_MODEL

SchedulerChoice(
    DDIMScheduler.from_pretrained(str(_FOLDER), subfolder="scheduler"), StableDiffusionPipeline
)
