"""Correctness: images equal to the CPU's, cancellation, and too little memory."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu import engine_access
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session
from safelight_service.core.events import (
    Event,
    Image,
    Preview,
    Progress,
)
from safelight_service.core.request import GenerationRequest, Parameters, PreviewOptions
from support.engine import job_runs
from support.engine.tiny_models import TinyModels
from support.pipelines.families import FAMILIES

_PRECISIONS = ("float32", "bfloat16")
"""The initial noise differs between precisions, so their images are not comparable."""

_REHEARSED_FAMILIES = ("sd15", "flux-dev", "z-image")
_IMAGES = 4
_GENERATIONS = 8
_CANCELLED = (0, 5)
"""Numbers of the generations to cancel."""

_SIDE_PX = 1024
_CROWD = 16
"""Images that share a forward when memory suffices."""

_ROOM = 1.15
"""Memory limit for one image alone, as a multiple of its need without a limit."""

_NO_ROOM_GIB = 0.3
_GIB = 2**30


def compare_families(session: Session, recorder: Recorder) -> None:
    """Draw with the tiny pipeline of each family: merged, alone, and merged on the CPU.

    Figures are the largest differences between two images, in levels of 0 to 255.
    """
    torch.set_num_threads(1)  # layers this small run slower on several threads
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    families = _REHEARSED_FAMILIES if session.is_rehearsal else tuple(FAMILIES)
    with tempfile.TemporaryDirectory() as folder:
        models = TinyModels(Path(folder))
        for family in families:
            for dtype in _PRECISIONS:
                with recorder.figure("family", family=family, dtype=dtype) as figure:
                    model = engine_access.load_tiny(models, family, session.device, dtype)
                    merged = _draw_merged(model)
                    alone = [_draw(model, number) for number in range(_IMAGES)]
                    figure["levels"] = len(set(merged[0]))  # 1 if the image is black
                    figure["merged_to_alone"] = _difference(merged, alone)
                    model = engine_access.load_tiny(models, family, "cpu", dtype)
                    figure["to_cpu"] = _difference(merged, _draw_merged(model))


def check_embedded(session: Session, recorder: Recorder) -> None:
    """Draw with the embedded model through the whole engine, and cancel some generations."""
    for dtype in _PRECISIONS:
        with recorder.figure("embedded", dtype=dtype) as figure:
            image, figure["previews"] = asyncio.run(_draw_embedded(session.device, dtype))
            expected, _ = asyncio.run(_draw_embedded("cpu", dtype))
            figure["to_cpu"] = job_runs.difference(
                job_runs.pixels_of(image), job_runs.pixels_of(expected)
            )
    with recorder.figure("cancellation") as figure:
        figure |= asyncio.run(_cancel_some(session.device))


def exhaust_memory(session: Session, recorder: Recorder) -> None:
    """Draw many images at once with memory for some of them, for none, and for all again.

    A CPU has no limit to set.
    """
    model = engine_access.load(session, "sd15")
    side_px, steps, crowd = session.side(_SIDE_PX), session.few(3), session.crowd(_CROWD)
    one_gib, crowd_gib = _measure_need(session, model, side_px, steps, crowd)
    recorder.write("need", side_px=side_px, one_gib=one_gib, crowd_gib=crowd_gib, images=crowd)
    limits = {
        "some fit": max(one_gib * _ROOM, (one_gib + crowd_gib) / 2),
        "none fits": _NO_ROOM_GIB,
        "all fit again": None,
    }
    for case, limit_gib in limits.items():
        with recorder.figure("memory", case=case, limit_gib=limit_gib, images=crowd) as figure:
            _limit_memory(session, limit_gib)
            outcomes = engine_access.draw(model, side_px, steps, crowd)
            figure["errors"] = Counter(outcome.error for outcome in outcomes if outcome.error)
            figure["widths"] = outcomes[0].widths


def _draw_merged(model: engine_access.Model) -> list[bytes]:
    recorders = [job_runs.Recorder() for _ in range(_IMAGES)]
    job_runs.run_jobs(
        *(
            job_runs.make_job(model, recorder, seed=seed, num_inference_steps=_steps(seed))
            for seed, recorder in enumerate(recorders)
        )
    )
    for recorder in recorders:
        if recorder.error is not None:
            raise recorder.error
    return [job_runs.pixels_of(job_runs.images_of(each.events)[0]) for each in recorders]


def _draw(model: engine_access.Model, seed: int) -> bytes:
    return job_runs.draw(model, seed=seed, num_inference_steps=_steps(seed))


def _steps(seed: int) -> int:
    return 3 + seed % 2


def _difference(pictures: list[bytes], others: list[bytes]) -> int:
    return max(map(job_runs.difference, pictures, others))


async def _draw_embedded(device: str, dtype: str) -> tuple[Image, int]:
    """Return the image and the number of its previews."""
    async with engine_access.run_embedded(device, dtype) as engine:
        request = GenerationRequest(
            "a large red circle and a small blue square",
            Parameters(seed=3),
            preview=PreviewOptions(interval_steps=1),
        )
        events = await job_runs.collect(engine, request)
    [image] = job_runs.images_of(events)
    return image, sum(isinstance(event, Preview) for event in events)


async def _cancel_some(device: str) -> dict[str, object]:
    """Cancel some of many generations at their first step; return the outcomes of all."""
    async with engine_access.run_embedded(device, "auto") as engine:
        tasks: list[asyncio.Task[list[Event]]] = []

        async def generate(number: int) -> list[Event]:
            def on_event(event: Event) -> None:
                if number in _CANCELLED and isinstance(event, Progress):
                    tasks[number].cancel()

            request = GenerationRequest("a green star", Parameters(seed=number))
            return await job_runs.collect(engine, request, on_event)

        tasks += [asyncio.create_task(generate(number)) for number in range(_GENERATIONS)]
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        ended += await asyncio.gather(generate(_GENERATIONS), return_exceptions=True)
        cancelled = [n for n, end in enumerate(ended) if isinstance(end, asyncio.CancelledError)]
        failed = [type(end).__name__ for end in ended if isinstance(end, Exception)]
        completed = sum(isinstance(end, list) for end in ended)
        return {"cancelled": cancelled, "completed": completed, "failed": failed}


def _measure_need(
    session: Session, model: engine_access.Model, side_px: int, steps: int, crowd: int
) -> tuple[float, float]:
    """Return the GiB for one image from prompt to pixels, and for a forward of `crowd` images."""
    call = engine_access.first_forward(model, side_px, steps)
    return (
        _peak_gib(session, lambda: engine_access.draw(model, side_px, steps)),
        _peak_gib(session, lambda: engine_access.run_forward(model, call, crowd)),
    )


def _peak_gib(session: Session, run: Callable[[], object]) -> float:
    """Return the GiB that a function allocates at most; 0 on a CPU."""
    if session.device == "cpu":
        run()
        return 0.0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / _GIB, 2)


def _limit_memory(session: Session, gib: float | None) -> None:
    """Limit further allocations to `gib`; None removes the limit."""
    if session.device == "cpu":
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    fraction = 1.0
    if gib is not None:
        fraction = min(1.0, (torch.cuda.memory_reserved() + gib * _GIB) / total)
    torch.cuda.set_per_process_memory_fraction(fraction)
