import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)

from safelight_service.core.errors import InvalidRequestError
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.sampling.schedulers import SchedulerChoice
from support.engine.crossings import Crossings
from support.engine.job_runs import run_job, steps_of
from support.engine.tiny_models import TinyModels
from support.pipelines.families import FAMILIES

STEP_COUNTS = (1, 2, 3, 8)

MODELS: dict[str, Any] = {
    "noise": DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flow solver": DPMSolverMultistepScheduler(
        flow_shift=3.0, prediction_type="flow_prediction", use_flow_sigmas=True
    ),
}
NAMES = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind, own in MODELS.items()
    for info in SchedulerChoice(own).list()
    for name in (info.name, *info.aliases)
]
DRAWING_NOISE = (
    "DDPMScheduler",
    "EulerAncestralDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "LCMScheduler",
    "TCDScheduler",
)
"""Classes whose steps add noise, drawn by a generator on the host."""


@pytest.fixture(params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> LoadedModel:
    """A model whose denoiser and VAE return at once; these tests only look at their calls."""
    model = tiny_models[request.param]
    pipeline = model.adapter.pipeline
    monkeypatch.setattr(model.denoiser, "forward", remember_answers(model.denoiser.forward))
    monkeypatch.setattr(pipeline.vae, "decode", functools.partial(enlarge, pipeline))
    return model


def remember_answers(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Run a forward only once for each set of shapes."""
    answers: dict[Any, Any] = {}

    @functools.wraps(forward)
    def answer(*args: Any, **kwargs: Any) -> Any:
        values = [*args, *kwargs.values()]
        key = tuple(
            len(value) if isinstance(value, list) else getattr(value, "shape", None)
            for value in values
        )
        if key not in answers:
            answers[key] = forward(*args, **kwargs)
        return answers[key]

    return answer


def enlarge(pipeline: Any, latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
    """Replace decoding; values of the latents that are not finite stay so."""
    factor = pipeline.vae_scale_factor
    rows = latents[:, :3].repeat_interleave(factor, dim=-2)
    return (rows.repeat_interleave(factor, dim=-1),)


@pytest.mark.parametrize("step_count", STEP_COUNTS)
def test_each_scheduler_makes_the_steps_that_were_asked_for(
    model: LoadedModel, step_count: int
) -> None:
    for info in model.capabilities.schedulers:
        # Without the settings of its aliases, a class counts steps alike.
        by_class = step_count == STEP_COUNTS[-1] or not info.aliases
        for name in (info.name,) if by_class else info.aliases:
            events = run_job(model, scheduler=name, num_inference_steps=step_count, height=64)
            assert steps_of(events) == list(range(1, step_count + 1)), name


def test_models_own_scheduler_comes_first(model: LoadedModel) -> None:
    own = type(model.adapter.pipeline.scheduler).__name__
    assert model.capabilities.schedulers[0].name == own


def test_names_and_aliases_are_unique(model: LoadedModel) -> None:
    names = [name for info in model.capabilities.schedulers for name in (info.name, *info.aliases)]
    assert len(names) == len(set(names))


def test_scheduler_of_another_kind_is_refused_with_those_that_fit(
    tiny_models: TinyModels,
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        run_job(tiny_models["flux-dev"], scheduler="ddim")
    [violation] = refusal.value.violations
    assert violation.field == "parameters.scheduler"
    assert violation.description == (
        "must be one of euler, lcm, unipc, FlowMatchEulerDiscreteScheduler, "
        "FlowMatchLCMScheduler, UniPCMultistepScheduler, not 'ddim'"
    )


@pytest.mark.parametrize("name", ["lcm", "LCMScheduler", "tcd"])
def test_consistency_samplers_refuse_more_steps_than_they_pick_from(
    tiny_models: TinyModels, name: str
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        run_job(tiny_models["sd15"], scheduler=name, num_inference_steps=51)
    [violation] = refusal.value.violations
    assert violation.field == "parameters.num_inference_steps"
    assert violation.description == "must be from 1 to 50, not 51"


def test_each_job_has_a_scheduler_of_its_own(tiny_models: TinyModels) -> None:
    pipeline: DiffusionPipeline = tiny_models["sd15"].adapter.pipeline
    before = dict(vars(pipeline.scheduler))
    run_job(tiny_models["sd15"])
    assert vars(pipeline.scheduler).keys() == before.keys()
    assert pipeline.scheduler.timesteps is before["timesteps"]


def test_alias_sets_what_its_name_says() -> None:
    choice = SchedulerChoice(EulerDiscreteScheduler(use_karras_sigmas=True))
    assert not choice.make("dpm++_2m").config["use_karras_sigmas"]
    assert choice.make("dpm++_2m_karras").config["use_karras_sigmas"]
    assert choice.make("dpm++_2m_sde").config["algorithm_type"] == "sde-dpmsolver++"


def test_class_name_keeps_the_models_configuration() -> None:
    own = EulerDiscreteScheduler(
        beta_start=0.001, prediction_type="v_prediction", use_karras_sigmas=True
    )
    made = SchedulerChoice(own).make("DPMSolverMultistepScheduler")
    assert made.config["beta_start"] == 0.001
    assert made.config["prediction_type"] == "v_prediction"
    assert made.config["use_karras_sigmas"]


def test_clean_latents_are_not_clipped_unless_the_model_says_so() -> None:
    silent, clipping = EulerDiscreteScheduler(), DDIMScheduler(clip_sample=True)
    assert not SchedulerChoice(silent).make("ddim").config["clip_sample"]
    assert SchedulerChoice(clipping).make("ddpm").config["clip_sample"]


def test_pndm_makes_no_runge_kutta_steps() -> None:
    own = PNDMScheduler(skip_prk_steps=False)
    made: Any = SchedulerChoice(own).make("PNDMScheduler")
    made.set_timesteps(8)
    assert len(made.timesteps) == 9


def test_shift_of_a_flow_is_kept_under_its_other_name() -> None:
    made = SchedulerChoice(FlowMatchEulerDiscreteScheduler(shift=3.0)).make("unipc")
    assert made.config["flow_shift"] == 3.0
    assert made.config["use_flow_sigmas"]
    assert made.config["prediction_type"] == "flow_prediction"


def test_only_schedulers_that_can_start_from_pure_noise_fit_a_model_trained_to() -> None:
    own = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    choice = SchedulerChoice(own)
    for info in choice.list():
        for name in (info.name, *info.aliases):
            assert choice.make(name).config["rescale_betas_zero_snr"], name


@pytest.mark.parametrize("step_count", STEP_COUNTS)
@pytest.mark.parametrize(
    "own",
    [
        DDIMScheduler(prediction_type="sample"),
        DDIMScheduler(
            rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
        ),
    ],
    ids=["predicts the clean image", "starts from pure noise"],
)
def test_schedulers_of_unusual_models_are_finite(own: Any, step_count: int) -> None:
    choice = SchedulerChoice(own)
    for alias in [alias for info in choice.list() for alias in info.aliases]:
        scheduler: Any = choice.make(alias)
        scheduler.set_timesteps(step_count)
        sample = torch.full((1, 1, 2, 2), float(scheduler.init_noise_sigma))
        for timestep in scheduler.timesteps:
            model_input = scheduler.scale_model_input(sample, timestep)
            sample = scheduler.step(model_input * 0.5, timestep, sample).prev_sample
        assert sample.isfinite().all(), alias


def make_steps(scheduler: Any, step_count: int) -> list[torch.Tensor]:
    """Return the latents after each step, with a nonlinear denoiser."""
    random = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(step_count, device="cpu")
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    options = {"generator": random} if takes_generator else {}
    sample = torch.randn(2, 4, 8, 8, generator=random)
    sample = sample * getattr(scheduler, "init_noise_sigma", 1.0)
    samples = []
    for timestep in scheduler.timesteps:
        model_input = sample
        if hasattr(scheduler, "scale_model_input"):
            model_input = scheduler.scale_model_input(sample, timestep)
        output = model_input.sin()
        (sample, *_) = scheduler.step(output, timestep, sample, return_dict=False, **options)
        samples.append(sample)
    return samples


@pytest.mark.parametrize("step_count", [1, 2, 5, 20])
@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_latents_are_to_the_last_bit_those_of_the_scheduler_as_it_comes(
    kind: str, name: str, step_count: int
) -> None:
    choice = SchedulerChoice(MODELS[kind])
    made: Any = choice.make(name)
    expected = make_steps(type(made).from_config(made.config), step_count)
    for scheduler in (made, choice.make(name)):  # the second reuses the first one's values
        for latents, others in zip(make_steps(scheduler, step_count), expected, strict=True):
            assert latents.equal(others)


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_steps_of_a_known_schedule_bring_nothing_to_the_device_but_noise(
    kind: str, name: str
) -> None:
    choice = SchedulerChoice(MODELS[kind])
    for _ in range(2):
        scheduler: Any = choice.make(name)
        scheduler.set_timesteps(5, device="meta")
        on_device = scheduler.timesteps
        assert on_device.device.type == "meta"
        near = choice.make(name)
        near.set_timesteps(5, device="cpu")  # type: ignore[attr-defined]
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        options = {"generator": torch.Generator()} if takes_generator else {}
        sample = torch.empty(1, 4, 8, 8, device="meta")
        with Crossings() as crossings:
            for far, timestep in zip(on_device, near.timesteps, strict=True):
                if hasattr(scheduler, "scale_model_input"):
                    scheduler.scale_model_input(sample, far)
                scheduler.timesteps = near.timesteps  # as denoising.py does
                scheduler.step(sample, timestep, sample, return_dict=False, **options)
    draws_noise = type(scheduler).__name__ in DRAWING_NOISE or name.startswith("dpm++_2m_sde")
    assert set(crossings.shapes) == ({sample.shape} if draws_noise else set())


def test_schedulers_are_constructed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow constructor would stop all other work on the device thread."""
    choice = SchedulerChoice(MODELS["noise"])
    first: Any = choice.make("dpm2")
    monkeypatch.setattr(type(first), "__init__", None)
    second: Any = choice.make("dpm2")
    assert second is not first
    first.set_timesteps(4)
    second.set_timesteps(2)
    assert (len(first.timesteps), len(second.timesteps)) == (7, 3)
