"""Random mixtures: adapters of all kinds, ranks and scales share forwards, each image as alone."""

import copy
import random
import zlib
from typing import Any

import pytest
import torch

from safelight_service.engine.lora.conversion import convert
from safelight_service.engine.lora.lora import Lora, Mixture
from safelight_service.engine.models.loaded_model import LoadedModel
from support.engine.job_runs import Recorder, make_job
from support.engine.tiny_models import TinyModels, reload
from support.pipelines.loras import make_dora, make_lokr, make_lora
from tests.service.engine.merging.test_merged_latents import run_to_latents

FAMILIES = ("sd15", "sdxl", "sd3", "flux-dev", "qwen-image", "z-image")
KINDS = (make_lora, make_lora, make_dora, make_lokr)
ROUNDS = 2
EXACT_TOLERANCE = 1e-10


def make_adapter(model: LoadedModel, seed: int, choice: random.Random) -> Lora:
    """Make an adapter of some layers of the denoiser, and perhaps of the first text encoder."""
    pipeline, share = model.adapter.pipeline, choice.choice((30, 60, 100))
    components = [model.adapter.denoiser_name]
    if "CLIP" in type(pipeline.text_encoder).__name__ and choice.random() < 0.3:
        components.append("text_encoder")

    def is_chosen(layer: str) -> bool:
        return zlib.crc32(f"{seed} {layer}".encode()) % 100 < share

    tensors: dict[str, torch.Tensor] = {}
    for component in components:
        make, rank = choice.choice(KINDS), choice.randint(1, 9)
        tensors |= make(pipeline, seed, rank, component, is_chosen)
    effects = convert(tensors, {}, pipeline, model.adapter.execution_device)
    digest = str(choice.random())
    return Lora(digest, digest, effects)


def make_mixtures(model: LoadedModel, choice: random.Random) -> list[Mixture]:
    loras = [make_adapter(model, choice.randrange(1000), choice) for _ in range(4)]
    return [
        Mixture(
            tuple(
                (lora, choice.choice((-1.0, 0.0, 0.3, 1.0, 1.7)))
                for lora in choice.sample(loras, choice.randint(0, 3))
            )
        )
        for _ in range(choice.randint(2, 6))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_random_mixtures_equal_each_alone(
    tiny_models: TinyModels, family: str, seed: int
) -> None:
    choice = random.Random(seed)
    # In double precision, no rounding hides a fault.
    pipeline = copy.deepcopy(tiny_models[family].adapter.pipeline)
    model = reload(pipeline.to(torch.float64))
    mixtures = make_mixtures(model, choice)
    parameters: list[dict[str, Any]] = [
        {
            "seed": number,
            "num_inference_steps": choice.randint(1, 3),
            "guidance_scale": choice.choice((1.0, 3.0)),
            "mixture": mixture,
        }
        for number, mixture in enumerate(mixtures)
    ]
    alone = [run_to_latents([make_job(model, Recorder(), **each)])[0] for each in parameters]
    jobs = [make_job(model, Recorder(), **each) for each in parameters]
    together = run_to_latents(jobs, turns_between=0)
    for found, expected in zip(together, alone, strict=True):
        assert (found - expected).abs().max() <= EXACT_TOLERANCE * expected.abs().max()
    if family != "z-image":  # adapters of whose rowless layers share with equal ones only
        assert max(width for job in jobs for width in job.widths) > 1
