"""End line: the fields of the single log line of a generation."""

import time
from dataclasses import asdict

from safelight_service.core.events import Completed
from safelight_service.generations.state import Generation


def describe_end(generation: Generation) -> dict[str, object]:
    """Return the fields for a generation that has ended; none holds a prompt or a token."""
    outcome, accepted = generation.outcome, generation.accepted
    line: dict[str, object] = {"state": generation.state.value, "generation_id": generation.id}
    if accepted is not None:
        line |= {"model": accepted.model, "image_count": accepted.request.image_count}
    if generation.owner:
        line["caller"] = generation.owner
    if generation.execution is not None and accepted is not None:
        done = generation.execution.usage_of(generation)
        usage = asdict(outcome.usage if isinstance(outcome, Completed) else done)
        line["usage"] = {name: round(each, 4) for name, each in usage.items()}
    if isinstance(outcome, Completed):
        line |= {"cache": outcome.cache.value, "step_count": outcome.step_count}
        line |= {name: round(each, 4) for name, each in asdict(outcome.timings).items()}
        line["widths"] = dict(outcome.widths)
    else:
        line |= {"error_type": type(outcome).__name__}
        line["total_s"] = round(time.monotonic() - generation.began_at, 4)
    return line
