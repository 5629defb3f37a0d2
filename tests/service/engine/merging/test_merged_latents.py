"""Merged latents: images of all families are equal, whether forwards are merged or not."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.job import Job
from safelight_service.engine.models.loaded_model import LoadedModel
from support.engine.job_runs import Recorder, make_batcher, make_job
from support.engine.tiny_models import TinyModels
from support.pipelines.families import FAMILIES

TOLERANCE = 1e-4
"""Largest difference as a share of the largest latent, in float32 on a CPU."""

REQUESTS: Sequence[dict[str, Any]] = (
    {"num_inference_steps": 5, "seed": 1, "guidance_scale": 3.0},
    {"num_inference_steps": 3, "seed": 2, "guidance_scale": 7.0, "inputs": "two blue stars"},
    {"num_inference_steps": 4, "seed": 3, "guidance_scale": 1.0, "inputs": "a " * 30},
    {
        "num_inference_steps": 2,
        "seed": 4,
        "guidance_scale": 2.0,
        "negative_prompt": "blurry, dark and much else",
    },
)
"""Requests that differ in all ways they may: steps, seeds, guidance (also off), prompt lengths."""

NEVER_MERGED = {"cogview4": {2}}
"""Requests with longer texts, in families where no mask would hide the difference."""


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(tiny_models: TinyModels, family: str) -> LoadedModel:
    return tiny_models[family]


def run_to_latents(jobs: Sequence[Job], turns_between: int = 2) -> list[torch.Tensor]:
    """Run jobs that arrive some turns apart, or together; return the latents that each decodes."""
    batcher = make_batcher()
    latents: dict[Job, torch.Tensor] = {}
    arriving = list(jobs)
    turn = 0

    def keep(image: ImageRun, latents_: torch.Tensor, run: Callable[[], Any]) -> Any:
        latents[image.job] = latents_.clone()
        return decode(image, latents_, run)

    decode = ImageRun._decode
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageRun, "_decode", keep)
        while arriving or batcher.jobs:
            while arriving and (turns_between == 0 or turn % turns_between == 0):
                batcher.add(arriving.pop(0))
                if turns_between:
                    break
            batcher.step()
            turn += 1
    return [latents[job] for job in jobs]


def make_jobs(model: LoadedModel, schedulers: Sequence[str | None]) -> list[Job]:
    known = {"inputs", *model.capabilities.supported_parameters}
    return [
        make_job(
            model,
            Recorder(),
            scheduler=scheduler,
            **{name: value for name, value in request.items() if name in known},
        )
        for request, scheduler in zip(REQUESTS, schedulers, strict=True)
    ]


def schedulers_of(model: LoadedModel) -> list[str | None]:
    """Return a different scheduler for each request, as far as the family has them."""
    names = [info.name for info in model.capabilities.schedulers if info.max_step_count is None]
    return [names[number % len(names)] if names else None for number in range(len(REQUESTS))]


def test_merged_latents_are_those_of_each_alone(model: LoadedModel, family: str) -> None:
    schedulers = schedulers_of(model)
    alone = [run_to_latents([job])[0] for job in make_jobs(model, schedulers)]
    jobs = make_jobs(model, schedulers)
    merged = run_to_latents(jobs)
    never_merged = {number for number, job in enumerate(jobs) if max(job.widths) == 1}
    assert never_merged == NEVER_MERGED.get(family, set())
    for latents, expected in zip(merged, alone, strict=True):
        assert (latents - expected).abs().max() <= TOLERANCE * expected.abs().max()
