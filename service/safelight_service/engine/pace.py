"""Pace: how long generations take, learnt from those that have run."""

from safelight_service.generation import ResolvedRequest

_WEIGHT = 0.3
"""Weight of the newest measurement in the moving average."""


class Pace:
    """Measured seconds per step, by model and size."""

    def __init__(self) -> None:
        self._seconds_per_step: dict[tuple[str, int, int, bool], float] = {}

    def note(self, model: str, request: ResolvedRequest, seconds: float) -> None:
        """Learn from a generation that ran `seconds` from its start to its last image."""
        key = self._key(model, request)
        measured = seconds / _step_total(request)
        before = self._seconds_per_step.get(key, measured)
        self._seconds_per_step[key] = before + _WEIGHT * (measured - before)

    def estimate_s(self, model: str, request: ResolvedRequest) -> float | None:
        """Seconds that the request will run; None while nothing like it has run."""
        per_step = self._seconds_per_step.get(self._key(model, request))
        return None if per_step is None else per_step * _step_total(request)

    @staticmethod
    def _key(model: str, request: ResolvedRequest) -> tuple[str, int, int, bool]:
        parameters = request.parameters
        is_guided = (parameters.guidance_scale or 0) > 1
        return model, parameters.width, parameters.height, is_guided


def _step_total(request: ResolvedRequest) -> int:
    return request.parameters.num_inference_steps * request.image_count
