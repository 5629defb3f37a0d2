"""Safety checkers with one small layer, and pipelines that have one."""

from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessorPil

from support.pipelines.families import make_pipeline

_WIDTH = 16


def make_safety_checker() -> StableDiffusionSafetyChecker:
    """Make the checker of SD 1.5, LCM and Hunyuan-DiT, with random concepts."""
    vision: dict[str, Any] = {
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 224,
        "patch_size": 32,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=_WIDTH))
    for embedded in (checker.concept_embeds, checker.special_care_embeds):
        embedded.data.normal_()
    return checker.eval()


def make_checked_pipeline(family: str = "sd15") -> DiffusionPipeline:
    """Make a family's pipeline with a safety checker, always with the same weights."""
    pipeline = make_pipeline(family)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checker = make_safety_checker()
    pipeline.register_modules(safety_checker=checker, feature_extractor=CLIPImageProcessorPil())
    return pipeline
