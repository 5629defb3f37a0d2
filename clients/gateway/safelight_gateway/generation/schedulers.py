"""Schedulers: translates the names of other programs to those of a model.

A1111 writes `DPM++ 2M Karras`, ComfyUI `dpmpp_2m` with the noise schedule `karras`, Replicate
`K_EULER_ANCESTRAL` and `DPMSolverMultistep`, and diffusers the name of a class.
"""

import re
from collections.abc import Sequence

from safelight.models import Scheduler

_SYNONYMS = {
    "dpm_2": "dpm2",
    "dpm++_2m_sde_gpu": "dpm++_2m_sde",
    "euler_ancestral": "euler_a",
    "klms": "lms",
    "plms": "pndm",
    "uni_pc": "unipc",
}
_KARRAS = "_karras"
_SEPARATORS = re.compile(r"[\s_-]+")
_CLASS_SUFFIX = "scheduler"
_PLAIN_SCHEDULES = ("", "automatic", "default", "normal", "simple")

SCHEDULES = ("normal", "karras")
"""Noise schedules that a sampler's name can be combined with; others are refused."""


def combine(sampler: str, schedule: str | None) -> str | None:
    """Return the scheduler for a sampler with a noise schedule; None for an unknown schedule.

    Programs that name a sampler use the word scheduler for its noise schedule.
    """
    schedule = (schedule or "").strip().lower()
    if schedule in _PLAIN_SCHEDULES:
        return sampler
    return f"{sampler}{_KARRAS}" if schedule == "karras" else None


def find_scheduler(name: str, offered: Sequence[Scheduler]) -> str:
    """Return the offered name for another program's name; unknown names as they are."""
    names = [alias for each in offered for alias in each.aliases] + [each.name for each in offered]
    if name in names:
        return name
    by_key = {_class_key(known): known for known in reversed(names)}
    return by_key.get(_alias_key(name)) or by_key.get(_class_key(name)) or name


def _alias_key(name: str) -> str:
    key = _SEPARATORS.sub("_", name.strip().lower()).removeprefix("k_").replace("dpmpp", "dpm++")
    base = key.removesuffix(_KARRAS)
    suffix = key[len(base) :]
    return f"{_SYNONYMS.get(base, base)}{suffix}"


def _class_key(name: str) -> str:
    return name.strip().lower().removesuffix(_CLASS_SUFFIX)
