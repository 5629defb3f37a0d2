"""Options: adapters, reused steps and logs of forwards, their images and their cost."""

import functools
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.gpu import engine_access
from benchmarks.gpu.job_options import PLAIN, Logs, Option, draw_at_once, open_options
from benchmarks.gpu.measurements import timing
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session
from support.engine import job_runs
from support.engine.tiny_models import TinyModels

_FAMILIES = ("sd15", "flux-dev", "z-image")
_IMAGES = 3
_CHECKED_STEPS = 6
_NAME = "sd15"
_SIDE_PX, _STEPS, _CALLERS, _ROUNDS = 512, 30, 8, 3


def check(session: Session, recorder: Recorder) -> None:
    """Draw with each option: merged, alone, on the CPU, and from the log of an earlier run.

    Figures are the largest differences between two images, in levels of 0 to 255.
    """
    torch.set_num_threads(1)  # layers this small run slower on several threads
    with tempfile.TemporaryDirectory() as folder:
        models = TinyModels(Path(folder))
        for family in _FAMILIES[:1] if session.is_rehearsal else _FAMILIES:
            with recorder.attempt("option", family=family):
                model, on_cpu = (
                    engine_access.load_tiny(models, family, device, "float32")
                    for device in (session.device, "cpu")
                )
                with open_options(model) as options, open_options(on_cpu) as expected:
                    for name, option in options.items():
                        with recorder.figure("option", family=family, option=name) as figure:
                            merged = _draw_merged(model, option)
                            alone = _draw_alone(model, option)
                            figure["merged_to_alone"] = _difference(merged, alone)
                            pictures = _draw_merged(on_cpu, expected[name])
                            figure["to_cpu"] = _difference(merged, pictures)
                with recorder.figure("continued", family=family) as figure:
                    figure |= _continue_from_log(model, Path(folder) / f"{family}-logs")


def measure(session: Session, recorder: Recorder) -> None:
    """Time images of several callers at once with each option, in turns."""
    model = engine_access.load(session, _NAME)
    side_px, count = session.side(_SIDE_PX), session.crowd(_CALLERS)
    steps = _CHECKED_STEPS if session.is_rehearsal else _STEPS
    conditions = {"side_px": side_px, "steps": steps, "callers": count}
    taken: dict[str, list[float]] = {}
    with recorder.attempt("cost", **conditions), open_options(model) as options:
        for _ in range(session.few(_ROUNDS) + 1):
            for name, option in options.items():
                draw = functools.partial(draw_at_once, model, option, side_px, steps, count)
                taken.setdefault(name, []).append(timing.time_once(session, draw)[0])
        medians = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
        for name, seconds in medians.items():
            ratio = round(medians[PLAIN] / seconds, 3)
            rate = round(count / seconds, 3)
            recorder.write("cost", option=name, **conditions, images_per_s=rate, ratio=ratio)


def _draw_merged(model: engine_access.Model, option: Option) -> list[bytes]:
    recorders = [job_runs.Recorder() for _ in range(_IMAGES)]
    job_runs.run_jobs(
        *(
            job_runs.make_job(
                model, recorder, seed=number, num_inference_steps=_CHECKED_STEPS, **option(number)
            )
            for number, recorder in enumerate(recorders)
        )
    )
    for recorder in recorders:
        if recorder.error is not None:
            raise recorder.error
    return [job_runs.pixels_of(job_runs.images_of(each.events)[0]) for each in recorders]


def _draw_alone(model: engine_access.Model, option: Option) -> list[bytes]:
    return [
        job_runs.draw(model, seed=number, num_inference_steps=_CHECKED_STEPS, **option(number))
        for number in range(_IMAGES)
    ]


def _difference(pictures: list[bytes], others: list[bytes]) -> int:
    return max(map(job_runs.difference, pictures, others))


def _continue_from_log(model: engine_access.Model, folder: Path) -> dict[str, int]:
    """Draw an image with a log, and again from the log; return its steps and the difference."""
    drawn: list[bytes] = []
    for _ in range(2):
        logs = Logs(folder)
        log = logs.open("image")
        drawn.append(job_runs.draw(model, num_inference_steps=_CHECKED_STEPS, log=log))
        logs.close()
    return {"logged_steps": log.step_count, "to_first": job_runs.difference(*drawn)}
