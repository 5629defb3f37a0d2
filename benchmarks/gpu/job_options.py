"""Job options: adapters, reused steps and logs of forwards, for jobs of one model."""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.gpu.engine_access import ENCODER_THREADS, Model, QuietRecorder, pipeline_of
from safelight_service.engine.lora.conversion import convert
from safelight_service.engine.lora.lora import NO_ADAPTERS, Lora, Mixture
from safelight_service.engine.recovery.log_writer import LogWriter
from safelight_service.engine.recovery.run_logs import RunLog
from safelight_service.engine.recovery.stores import FolderStore
from support.engine.job_runs import make_job, run_jobs
from support.pipelines.loras import make_lora

Option: TypeAlias = Callable[[int], Mapping[str, Any]]
"""Returns arguments of `make_job`, given the number of the job."""

PLAIN = "none"
"""Name of jobs without any option."""

_SHARE = 0.34
_RANK = 16
_SCALE = 0.7
_ROOM_BYTES = 4 << 30
_TTL_S = 600.0


class Logs:
    """Logs of runs in a folder, each of one image; `close` stores what is pending."""

    def __init__(self, folder: Path) -> None:
        self._store = FolderStore(folder, _TTL_S, _ROOM_BYTES)
        self._writer = LogWriter(_ROOM_BYTES)

    def open(self, name: str) -> RunLog:
        """Open the log of a name, with the forwards that it holds already."""
        names = [name]
        return RunLog(names, self._store.load(names), self._store, self._writer, _ROOM_BYTES)

    def close(self) -> None:
        """Store what is pending, and end the thread."""
        self._writer.close()


@contextmanager
def open_options(model: Model) -> Iterator[Mapping[str, Option]]:
    """Yield the options by name."""
    mixtures = [NO_ADAPTERS, *(Mixture(((lora, _SCALE),)) for lora in _make_loras(model))]
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        logs = Logs(Path(folder))
        try:
            yield {
                PLAIN: lambda number: {},
                "reused steps": lambda number: {"step_reuse": _SHARE},
                "adapters": lambda number: {"mixture": mixtures[number % len(mixtures)]},
                "logs": lambda number: {"log": logs.open(f"{next(numbers)}")},
            }
        finally:
            logs.close()


def draw_at_once(model: Model, option: Option, side_px: int, steps: int, count: int) -> None:
    """Make images at once with an option, and compress them in other threads.

    Raises:
        SafelightError: an image failed.
    """
    recorders = [QuietRecorder() for _ in range(count)]
    with ThreadPoolExecutor(ENCODER_THREADS) as encoders:
        jobs = [
            make_job(
                model,
                recorder,
                width=side_px,
                height=side_px,
                num_inference_steps=steps,
                seed=number,
                **option(number),
            )
            for number, recorder in enumerate(recorders)
        ]
        for job in jobs:
            job.encoders = encoders
        run_jobs(*jobs)
    for recorder in recorders:
        if recorder.error is not None:
            raise recorder.error


def _make_loras(model: Model) -> list[Lora]:
    """Make two adapters of the layers of attention, with random weights."""
    pipeline, device = pipeline_of(model), model.adapter.execution_device
    files = [make_lora(pipeline, seed, _RANK, is_chosen=_is_attention) for seed in range(2)]
    return [
        Lora(f"{number}", f"{number}", convert(tensors, {}, pipeline, device))
        for number, tensors in enumerate(files)
    ]


def _is_attention(layer: str) -> bool:
    return any(part in layer for part in (".attn", ".attention."))
