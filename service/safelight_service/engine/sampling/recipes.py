"""Recipes: diffusers classes and their settings, by the short names of schedulers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Recipe:
    """A class of diffusers, and the settings that its short name implies."""

    class_name: str
    config: Mapping[str, object] = field(default_factory=dict)


PLAIN: Mapping[str, object] = MappingProxyType(
    dict.fromkeys(
        ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"), False
    )
)
"""Turns off every spacing of noise levels that replaces the schedule's own.

Classes refuse two of them, so a short name sets all.
"""

_KARRAS = {**PLAIN, "use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}

# Short names for models trained on a noise schedule (epsilon, v, sample).
# Not KDPM2AncestralDiscreteScheduler: two steps from a high to a low noise give NaN.
DIFFUSION = {
    "ddim": Recipe("DDIMScheduler"),
    "ddpm": Recipe("DDPMScheduler"),
    "pndm": Recipe("PNDMScheduler"),
    "lms": Recipe("LMSDiscreteScheduler", PLAIN),
    "lms_karras": Recipe("LMSDiscreteScheduler", _KARRAS),
    "euler": Recipe("EulerDiscreteScheduler", PLAIN),
    "euler_karras": Recipe("EulerDiscreteScheduler", _KARRAS),
    "euler_a": Recipe("EulerAncestralDiscreteScheduler"),
    "heun": Recipe("HeunDiscreteScheduler", PLAIN),
    "dpm2": Recipe("KDPM2DiscreteScheduler", PLAIN),
    "dpm2_karras": Recipe("KDPM2DiscreteScheduler", _KARRAS),
    "dpm++_2m": Recipe("DPMSolverMultistepScheduler", PLAIN),
    "dpm++_2m_karras": Recipe("DPMSolverMultistepScheduler", _KARRAS),
    "dpm++_2m_sde": Recipe("DPMSolverMultistepScheduler", {**PLAIN, **_SDE}),
    "dpm++_2m_sde_karras": Recipe("DPMSolverMultistepScheduler", {**_KARRAS, **_SDE}),
    "dpm++_2s": Recipe("DPMSolverSinglestepScheduler", PLAIN),
    "deis": Recipe("DEISMultistepScheduler", PLAIN),
    "unipc": Recipe("UniPCMultistepScheduler", PLAIN),
    "unipc_karras": Recipe("UniPCMultistepScheduler", _KARRAS),
    "lcm": Recipe("LCMScheduler"),
    "tcd": Recipe("TCDScheduler"),
}

# Short names for flow-matching models whose pipelines pass sigmas.
FLOW_MATCH = {
    "euler": Recipe("FlowMatchEulerDiscreteScheduler"),
    "lcm": Recipe("FlowMatchLCMScheduler"),
    "unipc": Recipe("UniPCMultistepScheduler"),
}

# Short names for flow-matching models that come with a DPM-Solver (Sana).
FLOW_SOLVER = {
    "euler": Recipe("FlowMatchEulerDiscreteScheduler"),
    "dpm++_2m": Recipe("DPMSolverMultistepScheduler"),
    "deis": Recipe("DEISMultistepScheduler"),
    "unipc": Recipe("UniPCMultistepScheduler"),
}

# Settings that a class needs, regardless of the model's configuration.
NEEDS: Mapping[str, Mapping[str, object]] = {
    # Runge-Kutta steps would be added to the requested ones, and fewer than four fail.
    "PNDMScheduler": {"skip_prk_steps": True},
    # The class would set this itself, with a warning each time.
    "DPMSolverSinglestepScheduler": {"lower_order_final": True},
}

# Pipelines that work with these classes only: LCM decodes the second output of its own scheduler,
# and CogView4 passes sigmas together with timesteps that do not follow from them.
ONLY_FOR_PIPELINE = {
    "LatentConsistencyModelPipeline": {"LCMScheduler"},
    "CogView4Pipeline": {"FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"},
}

# Overrides of defaults for pixels: latents are not bounded by [-1, 1].
FOR_LATENTS = {"clip_sample": False}

_ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "DPMSolverMultistepScheduler": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
    "DPMSolverSinglestepScheduler": ("dpmsolver", "dpmsolver++", "sde-dpmsolver++"),
    "DEISMultistepScheduler": ("deis",),
}
"""Algorithms of the solvers, which share a setting but not its values."""


def translate_algorithm(class_name: str, algorithm: object) -> Mapping[str, object]:
    """Return the setting of a class that comes closest to another solver's `algorithm_type`."""
    known = _ALGORITHMS.get(class_name)
    if known is None or algorithm is None or algorithm in known:
        return {}
    is_stochastic = str(algorithm).startswith("sde-")
    likely = "sde-dpmsolver++" if is_stochastic else "dpmsolver++"
    return {"algorithm_type": likely if likely in known else known[0]}


REMEDIES: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "DPMSolverMultistepScheduler": (
        # Without it a last step between equal noise levels divides by its length.
        {"euler_at_final": True},
        # "sde-dpmsolver" has no third order.
        {"solver_order": 2},
        {"solver_order": 2, "euler_at_final": True},
    ),
    # The first order of "dpmsolver" mixes up its tensors.
    "DPMSolverSinglestepScheduler": ({"algorithm_type": "dpmsolver++"},),
    # "bh1" multiplies an infinite coefficient by 0 in the step to a noise of 0.
    "UniPCMultistepScheduler": ({"solver_type": "bh2"},),
}
"""Smallest changes that make a class work where it fails with the model's configuration, by class.

Each is tried in turn, and only after a failure. Images that were right stay the same.
"""
