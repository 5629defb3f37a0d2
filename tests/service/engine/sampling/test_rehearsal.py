"""Only schedulers that work are offered, and a configuration that can be mended is."""

import itertools
from typing import Any

import pytest
import torch
from diffusers import (
    AuraFlowPipeline,
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)

from safelight_service.core.errors import InvalidRequestError
from safelight_service.engine.pipeline.adapter import UnsupportedPipelineError
from safelight_service.engine.sampling import rehearsal
from safelight_service.engine.sampling.rehearsal import STEP_COUNTS, ScheduleCall, run
from safelight_service.engine.sampling.schedulers import SchedulerChoice
from support.engine.job_runs import run_job
from support.engine.tiny_models import reload
from support.pipelines.families import make_pipeline
from tests.service.engine.sampling.scheduler_sweep import Findings, check, random_models

COSINE: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2"}
NO_SIGNAL: dict[str, Any] = {
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}
"""A model that predicts the noise of samples that are nothing else."""
SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
RANDOM_MODELS = 4


def names_of(choice: SchedulerChoice) -> set[str]:
    return {name for info in choice.list() for name in (info.name, *info.aliases)}


def assert_works(
    choice: SchedulerChoice, name: str, calls: tuple[ScheduleCall, ...] = (ScheduleCall(),)
) -> None:
    for call, step_count in itertools.product(calls, STEP_COUNTS):
        assert run(choice.make(name), call, step_count).isfinite().all(), (name, step_count)


@pytest.mark.parametrize("own", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_a_short_name_replaces_the_models_spacing(own: Any) -> None:
    choice = SchedulerChoice(own(use_exponential_sigmas=True))
    for name in ("euler", "dpm++_2m", "unipc", "heun"):
        config = choice.make(name).config
        assert not any(config.get(spacing) for spacing in SPACINGS), name
    for name in ("euler_karras", "dpm++_2m_karras", "dpm2_karras", "unipc_karras"):
        config = choice.make(name).config
        assert [each for each in SPACINGS if config.get(each)] == ["use_karras_sigmas"], name
    assert choice.make("HeunDiscreteScheduler").config["use_exponential_sigmas"]


def test_lu_spacing_gives_way_to_karras() -> None:
    made = SchedulerChoice(DPMSolverMultistepScheduler(use_lu_lambdas=True)).make("dpm++_2m_karras")
    assert (made.config["use_karras_sigmas"], made.config["use_lu_lambdas"]) == (True, False)


@pytest.mark.parametrize(
    ("algorithm", "name", "expected"),
    [
        ("sde-dpmsolver++", "deis", "deis"),
        ("sde-dpmsolver++", "dpm++_2s", "sde-dpmsolver++"),
        ("sde-dpmsolver++", "dpm++_2m", "sde-dpmsolver++"),
        ("dpmsolver++", "deis", "deis"),
    ],
)
def test_algorithms_are_translated(algorithm: str, name: str, expected: str) -> None:
    choice = SchedulerChoice(DPMSolverMultistepScheduler(algorithm_type=algorithm))
    assert choice.make(name).config["algorithm_type"] == expected
    assert_works(choice, name)


@pytest.mark.filterwarnings("ignore:.*dpmsolver:FutureWarning")
def test_the_older_stochastic_algorithm_becomes_the_newer_one() -> None:
    choice = SchedulerChoice(
        DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min")
    )
    assert choice.make("dpm++_2s").config["algorithm_type"] == "sde-dpmsolver++"
    assert_works(choice, "deis")


def test_a_model_with_deis_has_solvers() -> None:
    choice = SchedulerChoice(DEISMultistepScheduler())
    for name in ("dpm++_2m", "dpm++_2m_karras", "dpm++_2s"):
        assert choice.make(name).config["algorithm_type"] == "dpmsolver++"
        assert_works(choice, name)


@pytest.mark.parametrize("spacing", SPACINGS[:2])
@pytest.mark.parametrize("is_shifted", [False, True], ids=["fixed shift", "dynamic shift"])
def test_unipc_on_a_flow_ignores_spacings_of_diffusions(spacing: str, is_shifted: bool) -> None:
    own = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=is_shifted, **{spacing: True}
    )
    choice = SchedulerChoice(own, FluxPipeline)
    calls = (ScheduleCall(passes_shift=is_shifted), ScheduleCall(True, is_shifted))
    for name in names_of(choice):
        assert_works(choice, name, calls)
    scheduler: Any = choice.make("unipc")
    scheduler.set_timesteps(**calls[1].arguments(5))
    assert float(scheduler.sigmas[0]) == pytest.approx(1.0, abs=1e-5)  # begins with pure noise
    assert choice.make("euler").config[spacing]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_ancestral_steps_survive_the_cosine_schedule(spacing: str) -> None:
    choice = SchedulerChoice(DDIMScheduler(timestep_spacing=spacing, **COSINE))
    for step_count in (1, 2, 3, 4, 6, 9, 14, 15, 30):
        assert run(choice.make("euler_a"), ScheduleCall(), step_count).isfinite().all()


@pytest.mark.parametrize("name", ["dpm++_2m_karras", "dpm2_karras", "euler_karras", "unipc_karras"])
def test_karras_spacing_works_on_the_cosine_schedule(name: str) -> None:
    choice = SchedulerChoice(DDIMScheduler(**COSINE))
    for step_count in (1, 2, 3, 4, 6, 9, 14, 15, 30):
        assert run(choice.make(name), ScheduleCall(), step_count).isfinite().all()


@pytest.mark.parametrize(
    ("own", "remedy"),
    [
        (
            DPMSolverMultistepScheduler(
                solver_order=3, use_karras_sigmas=True, final_sigmas_type="sigma_min"
            ),
            {"euler_at_final": True, "solver_order": 3},
        ),
        (UniPCMultistepScheduler(solver_type="bh1"), {"solver_type": "bh2"}),
    ],
    ids=["last step of no length", "bh1"],
)
def test_a_remedy_changes_what_fails_and_nothing_else(own: Any, remedy: dict[str, object]) -> None:
    choice = SchedulerChoice(own)
    name = type(own).__name__
    assert not choice.faults.keys() & {name}
    config = choice.make(name).config
    assert {key: config[key] for key in remedy} == remedy
    assert_works(choice, name)
    plain = [run(type(own).from_config(own.config), ScheduleCall(), count) for count in STEP_COUNTS]
    assert not all(latents.isfinite().all() for latents in plain)
    for step_count, latents in zip(STEP_COUNTS, plain, strict=True):
        if latents.isfinite().all():
            assert run(choice.make(name), ScheduleCall(), step_count).equal(latents)


def test_what_cannot_be_mended_is_not_offered() -> None:
    """Without signal in the first step, a prediction of the noise says nothing."""
    choice = SchedulerChoice(DDIMScheduler(**NO_SIGNAL))
    assert "DDIMScheduler" in choice.faults
    assert not names_of(choice) & {"DDIMScheduler", "ddim", "lcm", "tcd"}
    assert "euler" in names_of(choice)


def test_a_pipeline_that_passes_no_shift_takes_no_dynamic_one() -> None:
    own = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert not SchedulerChoice(own, AuraFlowPipeline).list()
    assert SchedulerChoice(own, FluxPipeline).list()


def test_a_default_that_does_not_work_stops_loading() -> None:
    pipeline: Any = make_pipeline("sd15")
    pipeline.scheduler = DDIMScheduler(**NO_SIGNAL)
    with pytest.raises(UnsupportedPipelineError, match="the default scheduler") as refusal:
        reload(pipeline)
    assert "DDIMScheduler gives values that are not finite at 1 steps" in str(refusal.value)


def test_a_name_that_does_not_work_is_refused_like_an_unknown_one() -> None:
    pipeline: Any = make_pipeline("sd15")
    pipeline.scheduler = EulerDiscreteScheduler(rescale_betas_zero_snr=True)
    model = reload(pipeline)
    with pytest.raises(InvalidRequestError) as refusal:
        run_job(model, scheduler="lcm")
    [violation] = refusal.value.violations
    assert violation.field == "parameters.scheduler"
    assert violation.description.startswith("must be one of ")
    assert violation.description.endswith("not 'lcm'")


def test_a_scheduler_takes_fewer_steps_than_it_was_trained_on() -> None:
    choice = SchedulerChoice(DDIMScheduler(num_train_timesteps=20, clip_sample=False))
    for info in choice.list():
        if info.name not in ("LCMScheduler", "TCDScheduler"):
            assert info.max_step_count == 19
            for name in (info.name, *info.aliases):
                assert run(choice.make(name), ScheduleCall(), 19).isfinite().all()
    assert all(
        info.max_step_count in (None, 50) for info in SchedulerChoice(DDIMScheduler()).list()
    )


def test_a_scheduler_without_a_short_name_is_offered_alone() -> None:
    choice = SchedulerChoice(KDPM2AncestralDiscreteScheduler())
    assert names_of(choice) == {"KDPM2AncestralDiscreteScheduler"}


def test_a_rehearsal_draws_nothing_from_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    SchedulerChoice(DDIMScheduler(beta_start=0.0011))
    SchedulerChoice(FlowMatchEulerDiscreteScheduler(shift=1.1, stochastic_sampling=True))
    assert torch.random.get_rng_state().equal(before)


def test_a_configuration_is_rehearsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = HeunDiscreteScheduler(beta_start=0.0012)
    first = SchedulerChoice(own).list()
    monkeypatch.setattr(rehearsal, "run", None)
    assert SchedulerChoice(own).list() == first


@pytest.mark.filterwarnings("ignore:.*dpmsolver:FutureWarning")
@pytest.mark.parametrize("seed", range(RANDOM_MODELS))
def test_all_names_of_a_random_model_work_as_in_plain_diffusers(seed: int) -> None:
    """A sample of the sweep."""
    findings = Findings()
    check(*next(random_models(seed)), findings, more_step_counts=())
    assert not findings.faults
