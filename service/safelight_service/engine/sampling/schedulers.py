"""Schedulers: finds those that fit a model, and makes them by name.

A request gives a class of diffusers (`EulerDiscreteScheduler`) or a short name
(`dpm++_2m_karras`). A class takes the model's own configuration; a short name implies settings.
"""

import copy
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import diffusers
import numpy as np
import torch

from safelight_service.core.model import SchedulerInfo
from safelight_service.engine.sampling.lms import LmsCoefficients
from safelight_service.engine.sampling.unipc import UniPcUpdates


class DiffusersScheduler(Protocol):
    """Attributes of diffusers schedulers that the engine uses."""

    config: Mapping[str, Any]
    timesteps: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Recipe:
    class_name: str
    config: Mapping[str, object] = field(default_factory=dict)


_PLAIN = {"use_karras_sigmas": False}
_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}

# Short names for models trained on a noise schedule (epsilon, v, sample).
# Not KDPM2AncestralDiscreteScheduler: two steps from a high to a low noise give NaN.
_DIFFUSION = {
    "ddim": _Recipe("DDIMScheduler"),
    "ddpm": _Recipe("DDPMScheduler"),
    "pndm": _Recipe("PNDMScheduler"),
    "lms": _Recipe("LMSDiscreteScheduler", _PLAIN),
    "lms_karras": _Recipe("LMSDiscreteScheduler", _KARRAS),
    "euler": _Recipe("EulerDiscreteScheduler", _PLAIN),
    "euler_karras": _Recipe("EulerDiscreteScheduler", _KARRAS),
    "euler_a": _Recipe("EulerAncestralDiscreteScheduler"),
    "heun": _Recipe("HeunDiscreteScheduler", _PLAIN),
    "dpm2": _Recipe("KDPM2DiscreteScheduler", _PLAIN),
    "dpm2_karras": _Recipe("KDPM2DiscreteScheduler", _KARRAS),
    "dpm++_2m": _Recipe("DPMSolverMultistepScheduler", _PLAIN),
    "dpm++_2m_karras": _Recipe("DPMSolverMultistepScheduler", _KARRAS),
    "dpm++_2m_sde": _Recipe("DPMSolverMultistepScheduler", {**_PLAIN, **_SDE}),
    "dpm++_2m_sde_karras": _Recipe("DPMSolverMultistepScheduler", {**_KARRAS, **_SDE}),
    "dpm++_2s": _Recipe("DPMSolverSinglestepScheduler", _PLAIN),
    "deis": _Recipe("DEISMultistepScheduler", _PLAIN),
    "unipc": _Recipe("UniPCMultistepScheduler", _PLAIN),
    "unipc_karras": _Recipe("UniPCMultistepScheduler", _KARRAS),
    "lcm": _Recipe("LCMScheduler"),
    "tcd": _Recipe("TCDScheduler"),
}

# Short names for flow-matching models whose pipelines pass sigmas.
_FLOW_MATCH = {
    "euler": _Recipe("FlowMatchEulerDiscreteScheduler"),
    "lcm": _Recipe("FlowMatchLCMScheduler"),
    "unipc": _Recipe("UniPCMultistepScheduler"),
}

# Short names for flow-matching models that come with a DPM-Solver (Sana).
_FLOW_SOLVER = {
    "euler": _Recipe("FlowMatchEulerDiscreteScheduler"),
    "dpm++_2m": _Recipe("DPMSolverMultistepScheduler"),
    "deis": _Recipe("DEISMultistepScheduler"),
    "unipc": _Recipe("UniPCMultistepScheduler"),
}


# Settings that a class needs, regardless of the model's configuration.
_NEEDS: Mapping[str, Mapping[str, object]] = {
    # Runge-Kutta steps would be added to the requested ones, and fewer than four fail.
    "PNDMScheduler": {"skip_prk_steps": True},
    # The class would set this itself, with a warning each time.
    "DPMSolverSinglestepScheduler": {"lower_order_final": True},
}

# Classes that do not support models which predict the clean image.
_NOT_FOR_SAMPLE_PREDICTION = frozenset(
    {"PNDMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler"}
)

# Pipelines that work with these classes only: LCM decodes the second output of its own scheduler,
# and CogView4 passes sigmas together with timesteps that do not follow from them.
_ONLY_FOR_PIPELINE = {
    "LatentConsistencyModelPipeline": {"LCMScheduler"},
    "CogView4Pipeline": {"FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"},
}

# Overrides of defaults for pixels: latents are not bounded by [-1, 1].
_FOR_LATENTS = {"clip_sample": False}


class SchedulerChoice:
    """Schedulers that fit one model and the class of its pipeline."""

    def __init__(self, own: DiffusersScheduler, pipeline_class: str = "") -> None:
        self._own = own
        self._only = _ONLY_FOR_PIPELINE.get(pipeline_class)
        self._own_name = type(own).__name__
        self._made: dict[str, DiffusersScheduler] = {}
        self._unipc, self._lms = UniPcUpdates(), LmsCoefficients()
        self._recipes = {
            alias: recipe for alias, recipe in _table_for(own).items() if self._fits(recipe)
        }

    @property
    def default(self) -> str:
        """Name of the model's own scheduler."""
        return self._own_name

    def list(self) -> tuple[SchedulerInfo, ...]:
        """Return all schedulers that fit, the model's own first."""
        names = dict.fromkeys(
            [self._own_name, *(recipe.class_name for recipe in self._recipes.values())]
        )
        return tuple(
            SchedulerInfo(
                name,
                tuple(a for a, recipe in self._recipes.items() if recipe.class_name == name),
                self._max_step_count(name),
            )
            for name in names
        )

    def make(self, name: str) -> DiffusersScheduler:
        """Make a new scheduler by a class name or short name from `list`."""
        if name not in self._made:
            self._made[name] = self._make(name)
        # Some constructors take 0.1 s, and all take longer than a copy.
        return self._patch(copy.deepcopy(self._made[name]))

    def _make(self, name: str) -> DiffusersScheduler:
        recipe = self._recipes.get(name) or _Recipe(name)
        needs = _NEEDS.get(recipe.class_name, {})
        if name == self._own_name and needs.items() <= self._own.config.items():
            return self._own
        scheduler_class = getattr(diffusers, recipe.class_name)
        taken = inspect.signature(scheduler_class.__init__).parameters
        own_config = {
            key: value
            for key, value in {**_FOR_LATENTS, **self._own.config}.items()
            if key.startswith("_") or key in taken
        }
        overrides = {**self._translated_config(recipe.class_name), **needs, **recipe.config}
        return cast(DiffusersScheduler, scheduler_class.from_config(own_config, **overrides))

    def _patch(self, scheduler: Any) -> DiffusersScheduler:
        """Patch a scheduler that would fail on valid requests, or would wait for the device."""
        if scheduler.config.get("shift_terminal"):
            # Stretching a schedule of one step would divide 0 by 0.
            stretch = scheduler.stretch_shift_to_terminal
            scheduler.stretch_shift_to_terminal = lambda t: stretch(t) if len(t) > 1 else t
        if isinstance(scheduler, diffusers.UniPCMultistepScheduler):
            self._unipc.attach(scheduler)
        if hasattr(scheduler, "get_lms_coefficient"):
            self._lms.attach(scheduler)
        _patch_timesteps(scheduler)
        return cast(DiffusersScheduler, scheduler)

    def _fits(self, recipe: _Recipe) -> bool:
        scheduler_class = getattr(diffusers, recipe.class_name)
        if "_backends" in vars(scheduler_class):  # needs a package that is not installed
            return False
        if self._only is not None and recipe.class_name not in self._only:
            return False
        predicts_sample = self._own.config.get("prediction_type") == "sample"
        if predicts_sample and recipe.class_name in _NOT_FOR_SAMPLE_PREDICTION:
            return False
        # A model trained with zero terminal SNR needs a scheduler that supports it, or every
        # noise level would differ from training.
        needs_zero_snr = self._own.config.get("rescale_betas_zero_snr", False)
        return not needs_zero_snr or _takes(scheduler_class, "rescale_betas_zero_snr")

    def _max_step_count(self, class_name: str) -> int | None:
        scheduler_class = getattr(diffusers, class_name)
        if not _takes(scheduler_class, "original_inference_steps"):
            return None
        # Consistency samplers choose their steps among these.
        return int(self._own.config.get("original_inference_steps", 50))

    def _translated_config(self, class_name: str) -> dict[str, object]:
        """Translate settings of the model's own scheduler to the names of another class."""
        config = self._own.config
        if not _is_flow(self._own):
            return {}
        shift = config.get("shift", config.get("flow_shift", 1.0))
        if class_name.startswith("FlowMatch"):
            return {"shift": shift}
        return {"flow_shift": shift, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def _patch_timesteps(scheduler: Any) -> None:
    set_timesteps = scheduler.set_timesteps
    signature = inspect.signature(set_timesteps)

    @functools.wraps(set_timesteps)  # pipelines inspect the signature
    def set_patched(*args: Any, **kwargs: Any) -> None:
        if kwargs.get("sigmas") is not None:
            # Z-Image passes a list, which UniPC cannot multiply.
            kwargs["sigmas"] = np.asarray(kwargs["sigmas"])
        if not scheduler.config.get("use_dynamic_shifting"):
            # HiDream passes a shift, which DPM-Solver and DEIS reject.
            kwargs.pop("mu", None)
        bound = signature.bind(*args, **kwargs)
        device = bound.arguments.get("device")
        if device is not None and torch.device(device).type != "mps":  # has no float64
            # The host needs the noise levels at each step. Many schedulers would compute them on
            # the device, and wait for the copy.
            bound.arguments["device"] = "cpu"
        set_timesteps(*bound.args, **bound.kwargs)
        scheduler.timesteps = scheduler.timesteps.to(device=device)
        if hasattr(scheduler, "set_begin_index"):
            # Otherwise the first step searches its timestep, and waits for the device.
            scheduler.set_begin_index(0)

    scheduler.set_timesteps = set_patched


def _takes(scheduler_class: Any, argument: str) -> bool:
    return argument in inspect.signature(scheduler_class.__init__).parameters


def _is_flow(scheduler: DiffusersScheduler) -> bool:
    return (
        type(scheduler).__name__.startswith("FlowMatch")
        or scheduler.config.get("prediction_type") == "flow_prediction"
    )


def _table_for(own: DiffusersScheduler) -> Mapping[str, _Recipe]:
    name = type(own).__name__
    if name in ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"):
        return _FLOW_MATCH
    if _is_flow(own):
        return _FLOW_SOLVER if name in {r.class_name for r in _FLOW_SOLVER.values()} else {}
    is_known = name in {recipe.class_name for recipe in _DIFFUSION.values()}
    return _DIFFUSION if is_known else {}
