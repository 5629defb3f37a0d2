"""The batcher: shared forwards, their order, and images that do not affect each other."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from structlog.testing import capture_logs

from safelight_service.core.errors import (
    DeadlineError,
    InternalError,
    NonFiniteImageError,
    OutOfMemoryError,
)
from safelight_service.core.events import Event, Image, Progress
from safelight_service.engine.batching.estimates.batch_profile import ProfileStore
from safelight_service.engine.batching.policy import SHORTEST_REMAINING
from safelight_service.engine.hardware import RunAhead
from safelight_service.engine.job import Job
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.settings import BatchingSettings
from support.engine.fake_costs import timed
from support.engine.job_runs import (
    Recorder,
    difference,
    images_of,
    make_batcher,
    make_job,
    pixels_of,
    run_jobs,
    take_steps,
)
from support.engine.tiny_models import TinyModels, reload

MARK = 9.0
"""Guidance scale that marks the rows of a job: FLUX passes it to the denoiser."""


@pytest.fixture
def model(tiny_models: TinyModels) -> LoadedModel:
    """FLUX.1-dev, with a row for each image and new cost models for each test."""
    return reload(tiny_models["flux-dev"].adapter.pipeline)


@contextmanager
def on_forward(
    model: LoadedModel, look: Callable[[dict[str, Any]], Any], *, after: bool = False
) -> Iterator[None]:
    """Call `look` with the denoiser's arguments before each forward, or with its output after."""
    if after:

        def change(_: Any, __: Any, arguments: dict[str, Any], output: Any) -> Any:
            return look({**arguments, "output": output})

        hook = model.denoiser.register_forward_hook(change, with_kwargs=True)
    else:
        hook = model.denoiser.register_forward_pre_hook(
            lambda _, __, arguments: look(arguments), with_kwargs=True
        )
    try:
        yield
    finally:
        hook.remove()


def make_jobs(model: LoadedModel, *requests: dict[str, Any]) -> tuple[list[Job], list[Recorder]]:
    recorders = [Recorder() for _ in requests]
    jobs = [make_job(model, r, **request) for r, request in zip(recorders, requests, strict=True)]
    return jobs, recorders


def pixels(recorder: Recorder) -> bytes:
    [image] = images_of(recorder.events)
    return pixels_of(image)


def expect_alone(model: LoadedModel, requests: Sequence[dict[str, Any]]) -> list[bytes]:
    """Run requests one after another; return their pixels."""
    found = []
    for request in requests:
        jobs, [recorder] = make_jobs(model, request)
        run_jobs(*jobs)
        found.append(pixels(recorder))
    return found


def test_jobs_that_arrive_one_by_one_end_up_in_one_batch(model: LoadedModel) -> None:
    """A new job joins the others at its first step, wherever they are.

    It starts while the device runs their forward, so it joins the next one.
    """
    jobs, _ = make_jobs(model, *({"seed": seed, "num_inference_steps": 6} for seed in range(4)))
    widths: list[int] = []
    batcher = make_batcher()
    with on_forward(model, lambda call: widths.append(len(call["guidance"]))):
        for job in jobs:
            batcher.add(job)
            take_steps(batcher, 1)
        take_steps(batcher)
    assert widths == [1, 1, 2, 3, 4, 4, 3, 3, 2, 1]


def test_images_of_one_request_share_forwards(model: LoadedModel) -> None:
    [job], _ = make_jobs(model, {"image_count": 3, "num_inference_steps": 4})
    run_jobs(job)
    assert max(job.widths) == 3


def test_no_more_are_merged_than_the_setting_allows(tiny_models: TinyModels) -> None:
    pipeline = tiny_models["flux-dev"].adapter.pipeline
    model = reload(pipeline, BatchingSettings(max_width=2))
    jobs, _ = make_jobs(model, *({"seed": seed} for seed in range(3)))
    run_jobs(*jobs)
    assert max(max(job.widths) for job in jobs) == 2


def test_as_many_tokens_in_another_shape_are_never_merged(model: LoadedModel) -> None:
    sizes = [{"width": 64, "height": 96}, {"width": 96, "height": 64}]
    alone = expect_alone(model, sizes)
    jobs, recorders = make_jobs(model, *sizes)
    run_jobs(*jobs)
    assert [set(job.widths) for job in jobs] == [{1}, {1}]
    assert [pixels(recorder) for recorder in recorders] == alone


def test_position_ids_of_equal_shape_but_other_content_keep_calls_apart(
    model: LoadedModel,
) -> None:
    call = {"hidden_states": torch.zeros(1, 6, 4), "timestep": 1, "img_ids": torch.zeros(6, 3)}
    key = model.merger.key
    assert key(call) == key({**call, "timestep": 2, "img_ids": torch.zeros(6, 3)})
    assert key(call) != key({**call, "img_ids": torch.ones(6, 3)})
    assert key(call) != key({**call, "hidden_states": torch.zeros(1, 8, 4)})
    assert key(call) != key({**call, "hidden_states": torch.zeros(1, 6, 4).bfloat16()})
    assert key(call) != key({**call, "guidance": None})


def test_a_pipeline_without_a_rule_runs_one_image_after_another(tiny_models: TinyModels) -> None:
    class HomeMadePipeline(StableDiffusionPipeline):  # type: ignore[misc]
        pass

    pipeline = HomeMadePipeline(
        **tiny_models["sd15"].adapter.pipeline.components, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    model = reload(pipeline)
    requests: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2}]
    alone = expect_alone(model, requests)
    jobs, recorders = make_jobs(model, *requests)
    run_jobs(*jobs)
    assert [set(job.widths) for job in jobs] == [{1}, {1}]
    assert [pixels(recorder) for recorder in recorders] == alone


def test_a_failing_member_fails_alone(model: LoadedModel) -> None:
    def refuse(call: dict[str, Any]) -> None:
        if (call["guidance"] == MARK).any():
            raise ValueError("marked")

    requests: list[Any] = [{"seed": 1}, {"seed": 2, "guidance_scale": MARK}, {"seed": 3}]
    jobs, (first, marked, third) = make_jobs(model, *requests)
    with on_forward(model, refuse):
        run_jobs(*jobs)
    assert isinstance(marked.error, InternalError)
    assert "marked" in str(marked.error)
    expected = expect_alone(model, [requests[0], requests[2]])
    assert difference(pixels(first), expected[0]) <= 1
    assert difference(pixels(third), expected[1]) <= 1


def test_what_fails_only_because_it_is_merged_is_merged_no_more(model: LoadedModel) -> None:
    """Some compiled models fail so. No image is lost, and later steps do not try again."""
    widths: list[int] = []

    def refuse(call: dict[str, Any]) -> None:
        widths.append(len(call["guidance"]))
        if widths[-1] > 1:
            raise NameError("name 's41' is not defined")

    requests = [{"seed": seed, "num_inference_steps": 4} for seed in range(3)]
    alone = expect_alone(model, requests)
    jobs, recorders = make_jobs(model, *requests)
    with on_forward(model, refuse), capture_logs() as log:
        run_jobs(*jobs)
    assert sum(width > 1 for width in widths) == 1
    assert [pixels(recorder) for recorder in recorders] == alone
    assert [line["error_type"] for line in log if line["event"] == "merging_failed"] == [
        "NameError"
    ]


def test_nan_stays_with_the_member_that_has_it(model: LoadedModel) -> None:
    def spoil(call: dict[str, Any]) -> Any:
        (predicted,) = call["output"]
        return (predicted.masked_fill(call["guidance"].view(-1, 1, 1) == MARK, torch.nan),)

    requests: list[Any] = [{"seed": 1}, {"seed": 2, "guidance_scale": MARK}]
    jobs, (first, marked) = make_jobs(model, *requests)
    with on_forward(model, spoil, after=True):
        run_jobs(*jobs)
    assert max(jobs[0].widths) == 2
    assert difference(pixels(first), expect_alone(model, requests)[0]) <= 1
    assert isinstance(marked.error, NonFiniteImageError)


def test_out_of_memory_halves_the_batch_and_is_not_tried_again(model: LoadedModel) -> None:
    widths: list[int] = []

    def refuse(call: dict[str, Any]) -> None:
        widths.append(len(call["guidance"]))
        if widths[-1] > 2:
            raise torch.OutOfMemoryError

    requests = [{"seed": seed, "num_inference_steps": 4} for seed in range(4)]
    alone = expect_alone(model, requests)
    jobs, recorders = make_jobs(model, *requests)
    with on_forward(model, refuse):
        run_jobs(*jobs)
    assert sum(width > 2 for width in widths) == 1
    for recorder, expected in zip(recorders, alone, strict=True):
        assert difference(pixels(recorder), expected) <= 1


@pytest.mark.parametrize("part", ["denoiser", "vae"])
def test_out_of_memory_alone_is_tried_again(model: LoadedModel, part: str) -> None:
    [alone] = expect_alone(model, [{}])
    module = model.denoiser if part == "denoiser" else model.adapter.pipeline.vae.decoder
    calls: list[None] = []

    def refuse_once(*_: Any) -> None:
        calls.append(None)
        if len(calls) == 1:
            raise torch.OutOfMemoryError

    hook = module.register_forward_pre_hook(refuse_once)
    [job], [recorder] = make_jobs(model, {})
    run_jobs(job)
    hook.remove()
    assert len(calls) > 1
    assert pixels(recorder) == alone


def run_out_of_device_memory() -> None:
    raise torch.OutOfMemoryError


def run_out_of_host_memory() -> None:
    torch.empty(2**50)


@pytest.mark.parametrize("run_out", [run_out_of_device_memory, run_out_of_host_memory])
def test_an_image_too_large_by_itself_is_out_of_memory(
    model: LoadedModel, run_out: Callable[[], None]
) -> None:
    def refuse(call: dict[str, Any]) -> None:
        if (call["guidance"] == MARK).any():
            run_out()

    jobs, (fine, marked) = make_jobs(model, {}, {"guidance_scale": MARK})
    with on_forward(model, refuse):
        run_jobs(*jobs)
    assert isinstance(marked.error, OutOfMemoryError)
    assert fine.error is None
    assert images_of(fine.events)


def test_rows_of_a_cancelled_job_are_gone_from_the_next_forward(model: LoadedModel) -> None:
    jobs, (kept, cancelled) = make_jobs(model, *({"num_inference_steps": 5} for _ in range(2)))
    widths: list[int] = []
    batcher = make_batcher()
    with on_forward(model, lambda call: widths.append(len(call["guidance"]))):
        for job in jobs:
            batcher.add(job)
        take_steps(batcher, 2)
        jobs[1].cancel()
        take_steps(batcher)
    assert widths == [2, 2, 1, 1, 1]
    assert images_of(kept.events)
    assert cancelled.is_closed
    assert not images_of(cancelled.events)


@pytest.mark.parametrize(
    ("decode_s", "expected"),
    [
        (0.5, "step/5 decode decode decode decode step/1"),
        (2.0, "step/5 decode decode step/1 decode step/1 decode step/1"),
        (9.0, "step/5 decode step/1 decode step/1 decode step/1 decode step/1"),
    ],
)
def test_decodes_and_steps_take_steps_by_how_many_wait_for_either(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, decode_s: float, expected: str
) -> None:
    short: list[dict[str, Any]] = [{"seed": seed, "num_inference_steps": 1} for seed in range(4)]
    jobs, _ = make_jobs(model, *short, {"num_inference_steps": 8})
    log: list[str] = []
    vae = model.adapter.pipeline.vae
    hook = vae.decoder.register_forward_pre_hook(lambda *_: log.append("decode"))
    with (
        timed(model, monkeypatch, forward_s=1.0, decode_s=decode_s),
        on_forward(model, lambda call: log.append(f"step/{len(call['guidance'])}")),
    ):
        run_jobs(*jobs)
    hook.remove()
    assert log.count("decode") == 5
    assert " ".join(log).startswith(expected)


@pytest.mark.parametrize(
    ("text_s", "expected"),
    [(0.5, [1, 1, 4, 1]), (2.0, [1, 1, 3, 2]), (9.0, [1, 1, 2, 2, 1])],
)
def test_starts_and_steps_take_steps_by_how_many_wait_for_either(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, text_s: float, expected: list[int]
) -> None:
    """Jobs that start together share even the single step of a one-step pipeline."""
    short = [
        {"seed": seed, "inputs": f"picture {seed}", "num_inference_steps": 1} for seed in range(3)
    ]
    jobs, _ = make_jobs(model, {"num_inference_steps": 4}, *short)
    widths: list[int] = []
    batcher = make_batcher()
    with (
        timed(model, monkeypatch, text_s=text_s, forward_s=1.0),
        on_forward(model, lambda call: widths.append(len(call["guidance"]))),
    ):
        batcher.add(jobs.pop(0))
        take_steps(batcher, 1)
        for job in jobs:
            batcher.add(job)
        take_steps(batcher)
    assert widths == expected


def test_estimates_are_right_under_a_steady_load(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four jobs always run, though the forecast does not know of future ones."""
    estimates: dict[int, list[tuple[float, float]]] = {}
    ratios: list[float] = []

    def make(seed: int) -> Job:
        def look(event: Event) -> None:
            match event:
                case Progress(step=step) if 5 <= step < 15:
                    moment = time.monotonic(), event.estimated_remaining_s
                    estimates.setdefault(seed, []).append(moment)
                case Image():
                    now = time.monotonic()
                    ratios.append(
                        statistics.fmean(left / (now - at) for at, left in estimates[seed])
                    )

        return make_job(model, Recorder(look), seed=seed, num_inference_steps=20)

    batcher = make_batcher()
    with timed(model, monkeypatch, forward_s=0.5, row_s=0.5, decode_s=1.0):
        for seed in range(30):
            batcher.add(make(seed))
            for turn in itertools.count():
                take_steps(batcher, 1)
                batcher.look_ahead()
                if turn >= 5 and len(batcher.jobs) < 4:
                    break
    assert ratios[-8:] == pytest.approx([1] * 8, abs=0.1)


def test_a_device_that_is_waited_for_is_seen_to_be_busy(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the watchdog would not notice a hang."""
    jobs, _ = make_jobs(model, {"num_inference_steps": 2})
    batcher = make_batcher()
    seen: list[float | None] = []
    end_step = RunAhead.end_step

    def look(ahead: RunAhead) -> None:
        seen.append(batcher.busy_since)
        end_step(ahead)

    monkeypatch.setattr(RunAhead, "end_step", look)
    batcher.add(jobs[0])
    take_steps(batcher)
    assert len(seen) >= 2  # after each step
    assert None not in seen


def test_those_that_ended_together_are_expected_back_together(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, _ = make_jobs(model, *({"seed": seed} for seed in range(3)), {"num_inference_steps": 1})
    batcher = make_batcher()
    with timed(model, monkeypatch, forward_s=6.0):
        assert batcher.expect() == (0, 0.0, 0.0)
        for job in jobs:
            batcher.add(job)
        take_steps(batcher)
        assert batcher.expect() == (3, 2.0, 0.003)
        other, _ = make_jobs(model, {"num_inference_steps": 1})
        batcher.add(other[0])
        take_steps(batcher)
        assert batcher.expect() == (1, 6.0, 0.003)


def test_shortest_remaining_goes_first_where_that_is_the_order(tiny_models: TinyModels) -> None:
    pipeline = tiny_models["flux-dev"].adapter.pipeline
    model = reload(pipeline, BatchingSettings(max_width=1))
    requests = [{"num_inference_steps": 40}, {"num_inference_steps": 2}]
    jobs, _ = make_jobs(model, *requests)
    ended: list[Job] = []
    batcher = make_batcher(SHORTEST_REMAINING)
    batcher.add(jobs[0])
    take_steps(batcher, 1)
    batcher.add(jobs[1])
    while batcher.jobs:
        before = list(batcher.jobs)
        take_steps(batcher, 1)
        ended += [job for job in before if job not in batcher.jobs]
    assert ended == [jobs[1], jobs[0]]


def test_first_come_is_first_served(tiny_models: TinyModels) -> None:
    pipeline = tiny_models["flux-dev"].adapter.pipeline
    model = reload(pipeline, BatchingSettings(max_width=1))
    jobs, _ = make_jobs(model, {"num_inference_steps": 9}, {"num_inference_steps": 1})
    batcher = make_batcher()
    for job in jobs:
        batcher.add(job)
    take_steps(batcher, 8)
    assert batcher.jobs == jobs
    assert not jobs[1].is_started
    take_steps(batcher)
    assert jobs[0].started_at < jobs[1].started_at


def test_prompts_are_encoded_once(model: LoadedModel) -> None:
    encoded: list[Any] = []
    encoder = model.adapter.pipeline.text_encoder_2
    hook = encoder.register_forward_pre_hook(lambda *_: encoded.append(None))
    for seed in range(3):
        jobs, _ = make_jobs(model, {"seed": seed, "inputs": "the same words"})
        run_jobs(*jobs)
    jobs, _ = make_jobs(model, {"inputs": "other words"})
    run_jobs(*jobs)
    hook.remove()
    assert len(encoded) == 2


def count_rows(model: LoadedModel, *sizes: tuple[int, int]) -> list[list[int]]:
    """Return the rows of each forward, by size, with eight images at once."""
    made: list[list[int]] = []
    for width, height in sizes:
        made.append([])
        request = {"width": width, "height": height, "num_inference_steps": 24}
        jobs, recorders = make_jobs(model, *({**request, "seed": seed} for seed in range(8)))
        with on_forward(model, lambda call: made[-1].append(len(call["guidance"]))):
            run_jobs(*jobs)
        assert all(images_of(recorder.events) for recorder in recorders)
    return made


def test_width_is_learned_from_forwards_that_are_needed_and_kept(
    tiny_models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No forward serves measurement alone, and other sizes of the same area use the result."""
    pipeline = tiny_models["flux-dev"].adapter.pipeline
    file = tmp_path / "profiles" / "profiles.json"

    def load(identity: str) -> LoadedModel:
        return reload(pipeline, BatchingSettings(), ProfileStore(file), identity)

    model = load("float32")
    with timed(model, monkeypatch, forward_s=1.0):
        first, across, larger = count_rows(model, (64, 96), (96, 64), (96, 96))
    assert sum(first) == 8 * 24
    assert first[:14] == [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8]
    assert across[0] == 8
    assert larger[:8] == first[:8]
    for identity, rows in (("float32", 8), ("compiled", 1)):
        model = load(identity)
        with timed(model, monkeypatch, forward_s=1.0):
            assert count_rows(model, (64, 96))[0][0] == rows


def test_nothing_is_learned_from_a_forward_that_fails(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at once, and would otherwise count as the fastest."""
    model = reload(tiny_models["flux-dev"].adapter.pipeline, BatchingSettings())
    with timed(model, monkeypatch, forward_s=1.0):
        count_rows(model, (64, 96))
        cost_model = model.cost_model(64, 96)
        before = cost_model.forward_s(1)
        with monkeypatch.context() as patch:
            patch.setattr(model, "run", lambda _: 1 / 0)
            jobs, [recorder] = make_jobs(model, {})
            run_jobs(*jobs)
        assert isinstance(recorder.error, InternalError)
        assert cost_model.forward_s(1) == before
        [rows] = count_rows(model, (64, 96))
    assert rows[0] == 8


def test_a_saturated_device_is_given_no_more_than_it_takes_at_once(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reload(tiny_models["flux-dev"].adapter.pipeline, BatchingSettings())
    with timed(model, monkeypatch, forward_s=0.0, row_s=1.0):
        [made] = count_rows(model, (64, 96))
    assert made[:8] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert set(made[8:]) == {1}


def test_memory_that_was_short_for_a_while_is_used_again(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after another model was loaded at the same time."""
    is_short = True
    widths: list[int] = []

    def refuse(call: dict[str, Any]) -> None:
        widths.append(len(call["guidance"]))
        if is_short and widths[-1] > 2:
            raise torch.OutOfMemoryError

    requests = [{"seed": seed, "num_inference_steps": 90} for seed in range(8)]
    jobs, recorders = make_jobs(model, *requests)
    batcher = make_batcher()
    for job in jobs:
        batcher.add(job)
    with timed(model, monkeypatch, forward_s=1.0), on_forward(model, refuse):
        take_steps(batcher, 20)
        assert widths[:2] == [8, 4]
        assert max(widths[-10:]) == 2
        is_short = False
        take_steps(batcher, 60)
    assert widths[-1] == 8
    assert not any(recorder.is_closed for recorder in recorders)


def test_an_image_that_fails_ends_all_of_its_job_and_nothing_else(model: LoadedModel) -> None:
    def refuse(call: dict[str, Any]) -> None:
        if (call["guidance"] == MARK).any():
            raise ValueError("marked")

    jobs, (marked, fine) = make_jobs(model, {"guidance_scale": MARK, "image_count": 3}, {})
    with on_forward(model, refuse):
        run_jobs(*jobs)
    assert isinstance(marked.error, InternalError)
    assert not images_of(marked.events)
    assert images_of(fine.events)


def test_an_idle_device_does_not_refuse_late_work_for_ever(model: LoadedModel) -> None:
    """Only work that runs can correct a forecast that one disturbed measurement has spoilt."""
    [job], [recorder] = make_jobs(model, {})
    job.cost_model.note_forward(1, 60.0)
    batcher = make_batcher()
    refusal_count = 0
    while refusal_count < 40:
        [job], [recorder] = make_jobs(model, {})
        job.deadline_at = time.monotonic() + 30
        batcher.add(job)
        take_steps(batcher)
        if recorder.error is None:
            break
        assert isinstance(recorder.error, DeadlineError)
        refusal_count += 1
    assert refusal_count > 3
    assert images_of(recorder.events)
    forward_s = job.cost_model.forward_s(1)
    assert forward_s is not None
    assert forward_s < 30
