"""Forwards: what a model's denoiser takes for one call and for many merged, without the service.

In a process of its own, so that the service which is measured next has the device to itself.
"""

import multiprocessing
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor

import torch

from safelight_service.engine.calls import Forward
from safelight_service.engine.hardware import is_out_of_memory, synchronize
from safelight_service.engine.loading import LoadedModel, load_model, silence_libraries
from safelight_service.settings import BatchingSettings, ModelSettings
from tests.service.engine.job_runs import Recorder, make_job

WIDTHS = (1, 2, 4, 8, 16)
RUNS = 5


def measure_forwards(settings: ModelSettings, side_px: int, steps: int) -> Mapping[int, float]:
    """Return the seconds of a forward by how many images share it; as many as fit into memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as process:
        return process.submit(_measure, settings, side_px, steps).result()


def _measure(settings: ModelSettings, side_px: int, steps: int) -> Mapping[int, float]:
    silence_libraries()
    found: dict[int, float] = {}
    with torch.no_grad():
        model = load_model(settings, BatchingSettings(max_width=max(WIDTHS)))
        call = _first_forward(model, side_px, steps)
        for width in WIDTHS:
            try:
                _time(model, call, width)  # warms up, and compiles
                found[width] = statistics.median(_time(model, call, width) for _ in range(RUNS))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                break
    return found


def _first_forward(model: LoadedModel, side_px: int, steps: int) -> Forward:
    """Return what the pipeline calls its denoiser with at its first step."""
    job = make_job(model, Recorder(), width=side_px, height=side_px, num_inference_steps=steps)
    [image] = job.images
    image.start()
    assert isinstance(image.call, Forward)
    return image.call


def _time(model: LoadedModel, call: Forward, width: int) -> float:
    begun_at = time.perf_counter()
    model.merger.run(model.denoiser, [call.arguments] * width)
    synchronize(model.adapter.execution_device)
    return time.perf_counter() - begun_at
