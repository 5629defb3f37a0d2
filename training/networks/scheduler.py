"""Scheduler: the amount of noise at each timestep."""

from diffusers import DDIMScheduler


def build_scheduler() -> DDIMScheduler:
    """Build the scheduler. It starts from pure noise, so dark and plain pictures are possible."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )
