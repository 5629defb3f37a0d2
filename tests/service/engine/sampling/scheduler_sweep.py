"""A sweep over configurations of schedulers: every offered name works, in any number of steps.

`python -m tests.service.engine.sampling.scheduler_sweep COUNT` tries COUNT random configurations,
and those of all families.
"""

import inspect
import itertools
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers import AuraFlowPipeline, FluxPipeline, QwenImagePipeline, StableDiffusion3Pipeline

from safelight_service.engine.models.loading import silence_libraries
from safelight_service.engine.sampling import recipes
from safelight_service.engine.sampling.rehearsal import STEP_COUNTS, ScheduleCall, run
from safelight_service.engine.sampling.schedulers import SchedulerChoice

MORE_STEP_COUNTS = (4, 15, 30)
"""Numbers that were not rehearsed."""

DIFFUSION = sorted({recipe.class_name for recipe in recipes.DIFFUSION.values()})
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler")
PIPELINES = (AuraFlowPipeline, FluxPipeline, QwenImagePipeline, StableDiffusion3Pipeline)

Axis = tuple[Mapping[str, object], ...]

_SPACINGS: Axis = (
    {},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_lu_lambdas": True},
)
_SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_DIFFUSION_AXES: tuple[Axis, ...] = (
    _SPACINGS,
    ({"beta_schedule": "linear"}, _SCALED, {"beta_schedule": "squaredcos_cap_v2"}),
    tuple({"prediction_type": each} for each in ("epsilon", "v_prediction", "sample")),
    tuple({"timestep_spacing": each} for each in ("leading", "trailing", "linspace")),
    ({}, {}, {"rescale_betas_zero_snr": True}),
    ({}, {"final_sigmas_type": "sigma_min"}),
    (
        {},
        {"algorithm_type": "dpmsolver++"},
        {"algorithm_type": "sde-dpmsolver++"},
        # Older ones, which cannot end without noise.
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    tuple({"solver_order": each} for each in (1, 2, 3)),
    ({}, {"solver_type": "heun"}, {"solver_type": "bh1"}),
    ({}, {"thresholding": True}),
    ({}, {"steps_offset": 1}),
)
_FLOW_AXES: tuple[Axis, ...] = (
    _SPACINGS[:4],
    tuple({"shift": each} for each in (1.0, 3.0)),
    ({}, {"use_dynamic_shifting": True}),
    ({}, {"shift_terminal": 0.02}),
    ({}, {"time_shift_type": "linear"}),
    ({}, {"stochastic_sampling": True}),
)
_SOLVER_AXES: tuple[Axis, ...] = (
    _SPACINGS,
    tuple({"flow_shift": each} for each in (1.0, 3.0)),
    tuple({"solver_order": each} for each in (1, 2, 3)),
    ({}, {"final_sigmas_type": "sigma_min"}),
    ({}, {"solver_type": "heun"}, {"solver_type": "bh1"}),
    ({}, {"algorithm_type": "sde-dpmsolver++"}),
)
_FLOW_SOLVERS = ("DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler")
_FLOW_PREDICTION = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@dataclass
class Findings:
    """Results of a sweep."""

    runs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Classes that are not offered, each with a configuration in which plain diffusers fails."""
    faults: list[str] = field(default_factory=list)


def random_models(seed: int) -> Iterator[tuple[Any, type | None]]:
    """Yield schedulers of models, each with the class of its pipeline, without an end."""
    rng = random.Random(seed)
    kinds: tuple[tuple[Any, Any, dict[str, object]], ...] = (
        (DIFFUSION, _DIFFUSION_AXES, {}),
        (FLOW, _FLOW_AXES, {}),
        (_FLOW_SOLVERS, _SOLVER_AXES, _FLOW_PREDICTION),
    )
    while True:
        names, axes, fixed = rng.choices(kinds, (8, 1, 1))[0]
        scheduler_class = getattr(diffusers, rng.choice(names))
        config = dict(fixed)
        for axis in axes:
            config |= rng.choice(axis)
        taken = inspect.signature(scheduler_class.__init__).parameters
        try:
            own = scheduler_class(**{key: config[key] for key in config if key in taken})
        except (ImportError, NotImplementedError, ValueError):
            continue  # scipy is not installed, or plain diffusers refuses the configuration
        yield own, rng.choice(PIPELINES) if names is FLOW else None


def check(
    own: Any,
    pipeline: type | None,
    findings: Findings,
    more_step_counts: Sequence[int] = MORE_STEP_COUNTS,
) -> None:
    """Run all names that are offered for a model, and see why others are not."""
    choice = SchedulerChoice(own, pipeline)
    for info in choice.list():
        for name, call in itertools.product((info.name, *info.aliases), _calls(own, pipeline)):
            for step_count in (*STEP_COUNTS, *more_step_counts):
                if info.max_step_count is not None and step_count > info.max_step_count:
                    continue
                findings.runs += 1
                latents = _try(choice.make(name), call, step_count)
                where = f"{name} at {step_count} steps, {type(own).__name__} {_set(own)}"
                if latents is None:
                    findings.faults.append(f"fails: {where}")
                    continue
                plain = _run_plainly(own, name, call, step_count)
                if plain is not None and not plain.equal(latents):
                    findings.faults.append(f"differs: {where}")
    for name in choice.faults:
        findings.refused[name] += 1
        call = _calls(own, pipeline)[0]
        if hasattr(diffusers, name) and all(
            _run_plainly(own, name, call, step_count) is not None for step_count in STEP_COUNTS
        ):
            findings.faults.append(f"refused: {name}, {type(own).__name__} {_set(own)}")


def _calls(own: Any, pipeline: type | None) -> list[ScheduleCall]:
    is_shifted = bool(own.config.get("use_dynamic_shifting")) and pipeline is not AuraFlowPipeline
    is_flow = type(own).__name__ in FLOW
    return [ScheduleCall(sigmas, is_shifted) for sigmas in ((False, True) if is_flow else (False,))]


def _run_plainly(own: Any, name: str, call: ScheduleCall, step_count: int) -> torch.Tensor | None:
    """Run the class as diffusers makes it; None if that fails, or is not what a name stands for."""
    if not hasattr(diffusers, name) or type(own).__name__ in FLOW or "flow_shift" in _set(own):
        return None
    config = {**recipes.FOR_LATENTS, **own.config}
    try:
        needs = recipes.NEEDS.get(name, {})
        scheduler_class = getattr(diffusers, name)
        is_own = name == type(own).__name__
        plain = scheduler_class.from_config(own.config if is_own else config, **needs)
    except (ImportError, NotImplementedError, ValueError):
        return None
    return _try(plain, call, step_count)


def _try(scheduler: Any, call: ScheduleCall, step_count: int) -> torch.Tensor | None:
    try:
        latents = run(scheduler, call, step_count)
    except Exception:
        return None
    return latents if latents.isfinite().all() else None


def _set(own: Any) -> Mapping[str, Any]:
    defaults = own.config.get("_use_default_values", ())
    return {
        key: value
        for key, value in own.config.items()
        if key not in defaults and not key.startswith("_")
    }


def main(count: int) -> None:
    """Sweep, and print the findings."""
    from support.pipelines.families import FAMILIES, make_pipeline

    warnings.simplefilter("ignore")  # of "dpmsolver", which is deprecated
    silence_libraries()
    findings = Findings()
    began_at = time.monotonic()
    for family in FAMILIES:
        pipeline: Any = make_pipeline(family)
        check(pipeline.scheduler, type(pipeline), findings)
    for own, pipeline in itertools.islice(random_models(0), count):
        check(own, pipeline, findings)
    seconds = time.monotonic() - began_at
    print(f"{count} configurations, {findings.runs} runs in {seconds:.0f} s")
    print("not offered:", dict(findings.refused.most_common()))
    print("\n".join(findings.faults) or "no fault")
    sys.exit(bool(findings.faults))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
