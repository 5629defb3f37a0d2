"""Serving: speed for callers over gRPC, and the overhead over the bare pipeline."""

import io
import statistics
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from safelight import Timings

from benchmarks.gpu.architectures import make_pipeline
from benchmarks.gpu.measurements.service import Callers, Images
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

_PNG_COMPRESSION = 3
"""Equal to the service's own level."""


def record_overhead(
    session: Session,
    recorder: Recorder,
    callers: Callers,
    architecture: str,
    side_px: int,
    steps: int,
    rounds: int,
) -> None:
    """Time the bare pipeline and the service's only caller in turns, both up to a PNG in memory.

    The overhead is the additional time of the service as a share of the bare pipeline's time,
    from the medians of all rounds.
    """
    side_px, steps = session.side(side_px), session.few(steps)
    with recorder.figure("overhead", side_px=side_px, steps=steps) as figure:
        pipeline = _make_bare(session, architecture)
        image = Images(side_px, steps, callers=1, count=1)
        bare: list[float] = []
        served: list[float] = []
        for number in range(session.few(rounds) + 1):
            began_at = time.perf_counter()
            _draw(pipeline, side_px, steps, number)
            bare.append(time.perf_counter() - began_at)
            served.append(callers.get(image).total_s)
        bare_s, served_s = (statistics.median(seconds[1:]) for seconds in (bare, served))
        figure["bare_s"] = [round(seconds, 4) for seconds in bare[1:]]
        figure["served_s"] = [round(seconds, 4) for seconds in served[1:]]
        figure["bare_steps_per_s"] = round(steps / bare_s, 2)
        figure["served_steps_per_s"] = round(steps / served_s, 2)
        figure["overhead"] = round(served_s / bare_s - 1, 4)


def record_callers(
    session: Session,
    recorder: Recorder,
    callers: Callers,
    variant: str,
    images: Images,
    warm_up_steps: int,
) -> None:
    """Record images per second for some callers, after an image for each to warm up."""
    side_px, steps = session.side(images.side_px), session.few(images.steps)
    at_once = session.crowd(images.callers)
    count = at_once if session.is_rehearsal else images.count
    conditions = {"variant": variant, "side_px": side_px, "steps": steps, "callers": at_once}
    with recorder.figure("served", **conditions) as figure:
        callers.get(Images(side_px, session.few(warm_up_steps), at_once, at_once))
        served = callers.get(Images(side_px, steps, at_once, count))
        figure["images"] = count
        figure["images_per_s"] = round(count / served.total_s, 4)
        figure["steps_per_s"] = round(count * steps / served.total_s, 2)
        figure["latency_s"] = round(statistics.median(served.latencies_s), 3)
        figure["worst_s"] = round(max(served.latencies_s), 3)
        figure["widths"] = dict(sorted(served.widths.items()))
        figure["phases_s"] = _medians(served.timings)


def _medians(timings: Sequence[Timings]) -> dict[str, float]:
    """Return the median of each phase, in seconds by name."""
    names = [field.name for field in fields(Timings)]
    return {
        name: round(statistics.median(getattr(each, name) for each in timings), 4) for name in names
    }


def _make_bare(session: Session, architecture: str) -> Any:
    device = torch.device(session.device)
    pipeline: Any = make_pipeline(architecture, device, shrunk=session.is_rehearsal)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _draw(pipeline: Any, side_px: int, steps: int, seed: int) -> None:
    """Make one image and compress it."""
    picture = pipeline(
        f"a lighthouse {seed}",
        width=side_px,
        height=side_px,
        num_inference_steps=steps,
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images[0]
    picture.save(io.BytesIO(), "PNG", compress_level=_PNG_COMPRESSION)
