"""Names of schedulers: those of other programs mean those of the service."""

import pytest
from safelight.models import Scheduler

from safelight_gateway.generation.schedulers import combine, find_scheduler

OFFERED = tuple(
    Scheduler(name=name, aliases=aliases, max_step_count=None)
    for name, aliases in (
        ("DPMSolverMultistepScheduler", ("dpm++_2m", "dpm++_2m_karras", "dpm++_2m_sde")),
        ("EulerDiscreteScheduler", ("euler", "euler_karras")),
        ("EulerAncestralDiscreteScheduler", ("euler_a",)),
        ("HeunDiscreteScheduler", ("heun",)),
        ("LMSDiscreteScheduler", ("lms", "lms_karras")),
        ("KDPM2DiscreteScheduler", ("dpm2", "dpm2_karras")),
        ("UniPCMultistepScheduler", ("unipc",)),
        ("PNDMScheduler", ("pndm",)),
        ("DDIMScheduler", ("ddim",)),
    )
)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        # A1111
        ("DPM++ 2M Karras", "dpm++_2m_karras"),
        ("DPM++ 2M", "dpm++_2m"),
        ("DPM++ 2M SDE", "dpm++_2m_sde"),
        ("Euler a", "euler_a"),
        ("Euler", "euler"),
        ("LMS Karras", "lms_karras"),
        ("DPM2 Karras", "dpm2_karras"),
        ("PLMS", "pndm"),
        ("UniPC", "unipc"),
        # ComfyUI
        ("dpmpp_2m", "dpm++_2m"),
        ("dpmpp_2m_karras", "dpm++_2m_karras"),
        ("dpmpp_2m_sde_gpu", "dpm++_2m_sde"),
        ("euler_ancestral", "euler_a"),
        ("uni_pc", "unipc"),
        ("dpm_2", "dpm2"),
        # Replicate
        ("K_EULER", "euler"),
        ("K_EULER_ANCESTRAL", "euler_a"),
        ("DPMSolverMultistep", "DPMSolverMultistepScheduler"),
        ("HeunDiscrete", "HeunDiscreteScheduler"),
        ("KLMS", "lms"),
        ("DDIM", "ddim"),
        ("PNDM", "pndm"),
        # diffusers
        ("EulerDiscreteScheduler", "EulerDiscreteScheduler"),
        ("eulerdiscretescheduler", "EulerDiscreteScheduler"),
        # the service's own
        ("dpm++_2m_karras", "dpm++_2m_karras"),
    ],
)
def test_names_of_other_programs(written: str, name: str) -> None:
    assert find_scheduler(written, OFFERED) == name


@pytest.mark.parametrize(
    "written", ["DPM++ 2S a", "DPM2 a", "Restart", "LCM", "euler_ancestral_karras", "karras", "é"]
)
def test_names_that_nothing_offered_has_stay_as_they_are(written: str) -> None:
    assert find_scheduler(written, OFFERED) == written


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (None, "dpmpp_2m"),
        ("normal", "dpmpp_2m"),
        ("Automatic", "dpmpp_2m"),
        ("karras", "dpmpp_2m_karras"),
        ("Karras", "dpmpp_2m_karras"),
        ("exponential", None),
    ],
)
def test_schedule_is_part_of_the_scheduler(schedule: str | None, name: str | None) -> None:
    assert combine("dpmpp_2m", schedule) == name
