"""Samplers: names of schedulers in AUTOMATIC1111's web UI, which other programs recognise."""

from collections.abc import Mapping

_NAMES = {
    "DDIMScheduler": "DDIM",
    "DDPMScheduler": "DDPM",
    "DEISMultistepScheduler": "DEIS",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DPMSolverSDEScheduler": "DPM++ SDE",
    "DPMSolverSinglestepScheduler": "DPM++ 2S",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "FlowMatchHeunDiscreteScheduler": "Heun",
    "FlowMatchLCMScheduler": "LCM",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "TCDScheduler": "TCD",
    "UniPCMultistepScheduler": "UniPC",
}

_SPACINGS = {
    "use_karras_sigmas": "Karras",
    "use_exponential_sigmas": "Exponential",
    "use_beta_sigmas": "Beta",
}


def sampler_name(class_name: str, config: Mapping[str, object]) -> str:
    """Return the name for a scheduler of diffusers; that of the class if there is none."""
    words = [_NAMES.get(class_name, class_name)]
    if str(config.get("algorithm_type")).startswith("sde-"):
        words.append("SDE")
    words += [word for key, word in _SPACINGS.items() if config.get(key)]
    return " ".join(words)
