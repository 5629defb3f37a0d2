"""Schedulers: finds those that work for a model, and makes them by name.

A request gives a class of diffusers (`EulerDiscreteScheduler`) or a short name
(`dpm++_2m_karras`). A class takes the model's own configuration; a short name implies settings.
Each name has been rehearsed before it is offered.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import diffusers
import structlog
import torch

from safelight_service.core.model import SchedulerInfo
from safelight_service.engine.sampling import recipes
from safelight_service.engine.sampling.lms import LmsCoefficients
from safelight_service.engine.sampling.recipes import Recipe
from safelight_service.engine.sampling.rehearsal import STEP_COUNTS, ScheduleCall, find_fault
from safelight_service.engine.sampling.schedule import adapt_schedule
from safelight_service.engine.sampling.unipc import UniPcUpdates

_log = structlog.get_logger()


_MOST_STEPS = 150
"""Limit of a model without a setting."""


class DiffusersScheduler(Protocol):
    """Attributes of diffusers schedulers that the engine uses."""

    config: Mapping[str, Any]
    timesteps: torch.Tensor


class SchedulerChoice:
    """Schedulers that work for one model and the class of its pipeline.

    Attributes:
        faults: why schedulers that would fit are not offered, by name.
    """

    def __init__(
        self,
        own: DiffusersScheduler,
        pipeline: type | None = None,
        most_steps: int = _MOST_STEPS,
    ) -> None:
        """Rehearse the schedulers that fit; those that work take at most `most_steps` steps."""
        self._own = own
        self._most_steps = most_steps
        self._own_name = type(own).__name__
        self._only = recipes.ONLY_FOR_PIPELINE.get(pipeline.__name__ if pipeline else "")
        self._calls = _list_calls(own, pipeline)
        self._unipc, self._lms = UniPcUpdates(), LmsCoefficients()
        self._made: dict[str, DiffusersScheduler] = {}
        self.faults: dict[str, str] = {}
        self._infos = tuple(self._offer())
        if self.faults:
            _log.debug("schedulers_left_out", faults=self.faults)

    @property
    def default(self) -> str:
        """Name of the model's own scheduler."""
        return self._own_name

    def list(self) -> tuple[SchedulerInfo, ...]:
        """Return all schedulers that work, the model's own first."""
        return self._infos

    def make(self, name: str) -> DiffusersScheduler:
        """Make a new scheduler by a class name or short name from `list`."""
        # Some constructors take 0.1 s, and all take longer than a copy.
        return self._patch(copy.deepcopy(self._made[name]))

    def _offer(self) -> Iterator[SchedulerInfo]:
        """Rehearse all schedulers that fit, and describe those that work."""
        aliases = {a: recipe for a, recipe in _table_for(self._own).items() if self._fits(recipe)}
        names = [self._own_name, *(recipe.class_name for recipe in aliases.values())]
        for name in dict.fromkeys(names):
            most = self._max_step_count(name)
            if self._rehearse(name, Recipe(name), most):
                working = (
                    alias
                    for alias, recipe in aliases.items()
                    if recipe.class_name == name and self._rehearse(alias, recipe, most)
                )
                yield SchedulerInfo(name, tuple(working), most)

    def _rehearse(self, name: str, recipe: Recipe, most: int | None) -> bool:
        """Make a scheduler, with the first remedy that it needs; return whether it works."""
        if name == self._own_name and not _table_for(self._own):
            self._made[name] = self._own  # only its pipeline knows how to call it
            return True
        step_counts = [count for count in STEP_COUNTS if most is None or count <= most]
        remedies: list[Mapping[str, object]] = [{}, *recipes.REMEDIES.get(recipe.class_name, ())]
        if not recipe.config.keys() & recipes.PLAIN.keys():  # its name promises no spacing
            remedies.append(recipes.PLAIN)
        for remedy in remedies:
            try:
                made = self._construct(name, recipe, remedy)
                fault = find_fault(
                    lambda: self._patch(copy.deepcopy(made)),  # noqa: B023
                    self._calls,
                    step_counts,
                )
            except Exception as error:  # by a constructor
                fault = f"raises {type(error).__name__}"
            if fault is None:
                self._made[name] = made
                self.faults.pop(name, None)
                return True
            self.faults.setdefault(name, fault)
        return False

    def _construct(
        self, name: str, recipe: Recipe, remedy: Mapping[str, object]
    ) -> DiffusersScheduler:
        needs = {**recipes.NEEDS.get(recipe.class_name, {}), **remedy}
        if name == self._own_name and needs.items() <= self._own.config.items():
            return self._own
        scheduler_class = getattr(diffusers, recipe.class_name)
        taken = inspect.signature(scheduler_class.__init__).parameters
        config = {
            key: value
            for key, value in {**recipes.FOR_LATENTS, **self._own.config}.items()
            if key.startswith("_") or key in taken
        }
        algorithm = recipes.translate_algorithm(recipe.class_name, config.get("algorithm_type"))
        overrides = {**self._translated_config(recipe.class_name), **algorithm, **recipe.config}
        overrides |= needs
        known = {key: value for key, value in overrides.items() if key in taken}
        return _construct_quickly(scheduler_class, config, known)

    def _patch(self, scheduler: Any) -> DiffusersScheduler:
        """Patch a scheduler that would fail on valid requests, or would wait for the device."""
        if isinstance(scheduler, diffusers.UniPCMultistepScheduler):
            self._unipc.attach(scheduler)
        if hasattr(scheduler, "get_lms_coefficient"):
            self._lms.attach(scheduler)
        adapt_schedule(scheduler)
        return cast(DiffusersScheduler, scheduler)

    def _fits(self, recipe: Recipe) -> bool:
        scheduler_class = getattr(diffusers, recipe.class_name)
        if "_backends" in vars(scheduler_class):  # needs a package that is not installed
            return False
        if self._only is not None and recipe.class_name not in self._only:
            return False
        # A model trained with zero terminal SNR needs a scheduler that supports it, or every
        # noise level would differ from training.
        needs_zero_snr = self._own.config.get("rescale_betas_zero_snr", False)
        return not needs_zero_snr or _takes(scheduler_class, "rescale_betas_zero_snr")

    def _max_step_count(self, class_name: str) -> int | None:
        """Return the most steps of a class; None if the model's limit is lower."""
        most = self._most_steps
        if _takes(getattr(diffusers, class_name), "original_inference_steps"):
            # Consistency samplers choose their steps among these.
            return int(self._own.config.get("original_inference_steps", 50))
        trained = self._own.config.get("num_train_timesteps")
        if _table_for(self._own) is recipes.DIFFUSION and trained is not None:
            # Solvers divide by the distance of two steps, which must not be 0.
            most = min(most, max(1, trained - 1))
        return most if most < self._most_steps else None

    def _translated_config(self, class_name: str) -> Mapping[str, object]:
        """Translate settings of the model's own scheduler to the names of another class."""
        config = self._own.config
        if not _is_flow(self._own):
            return {}
        shift = config.get("shift", config.get("flow_shift", 1.0))
        if class_name.startswith("FlowMatch"):
            return {"shift": shift}
        flow = {"flow_shift": shift, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        # Solvers would space the noise levels of a diffusion, not those of a flow.
        return flow if class_name == self._own_name else {**recipes.PLAIN, **flow}


def _list_calls(own: DiffusersScheduler, pipeline: type | None) -> Sequence[ScheduleCall]:
    """Return the ways in which a pipeline may ask for its timesteps."""
    if not type(own).__name__.startswith("FlowMatch"):
        return [ScheduleCall()]
    knows_shift = True
    if pipeline is not None:
        names = inspect.unwrap(pipeline.__call__).__code__.co_varnames
        knows_shift = "mu" in names
    passes_shift = knows_shift and bool(own.config.get("use_dynamic_shifting"))
    return [ScheduleCall(passes_sigmas, passes_shift) for passes_sigmas in (False, True)]


def _construct_quickly(
    scheduler_class: Any, config: Mapping[str, Any], overrides: Mapping[str, Any]
) -> DiffusersScheduler:
    """Construct a scheduler without the schedule of all training steps.

    Some constructors set it, which takes 0.2 s; pipelines set another one anyway.
    """

    def set_two_steps(self: Any, *_: Any) -> None:
        scheduler_class.set_timesteps(self, 2, device="cpu")

    quick = type(scheduler_class.__name__, (scheduler_class,), {"set_timesteps": set_two_steps})
    made: Any = quick.from_config(config, **overrides)  # type: ignore[attr-defined]
    made.__class__ = scheduler_class
    return cast(DiffusersScheduler, made)


def _takes(scheduler_class: Any, argument: str) -> bool:
    return argument in inspect.signature(scheduler_class.__init__).parameters


def _is_flow(scheduler: DiffusersScheduler) -> bool:
    return (
        type(scheduler).__name__.startswith("FlowMatch")
        or scheduler.config.get("prediction_type") == "flow_prediction"
    )


def _table_for(own: DiffusersScheduler) -> Mapping[str, Recipe]:
    """Return the short names for a model; none if its own scheduler has no short name."""
    name = type(own).__name__
    if name in ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"):
        return recipes.FLOW_MATCH
    table = recipes.FLOW_SOLVER if _is_flow(own) else recipes.DIFFUSION
    return table if name in {recipe.class_name for recipe in table.values()} else {}
