"""Graphs: forwards compiled ahead for a few widths, padded to them, and never compiled again."""

from collections.abc import Mapping
from typing import Any

import pytest
import structlog
import torch
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from safelight_service.core.observer import Compilation
from safelight_service.engine.compilation.buckets import Bucket
from safelight_service.engine.compilation.graphs import BucketedForward
from safelight_service.engine.compilation.recording import CallRecorder, Run
from safelight_service.engine.merging.collation import ROWS, TIMESTEP
from safelight_service.engine.merging.families import RULES
from safelight_service.engine.merging.merger import Merger
from safelight_service.engine.models.acceleration import AccelerationError, accelerate
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.operations import Forward
from safelight_service.engine.pipeline.adapter import find_denoiser_name
from safelight_service.settings import AccelerationSettings, BatchingSettings
from support.engine.job_runs import (
    Recorder,
    draw,
    make_batcher,
    make_job,
    run_jobs,
    take_steps,
)
from support.engine.tiny_models import MERGING, reload
from support.pipelines.families import FAMILIES, make_pipeline
from tests.service.engine.merging.test_merged_latents import (
    TOLERANCE,
    make_jobs,
    run_to_latents,
    schedulers_of,
)

CPU = torch.device("cpu")
RULE = {"sample": ROWS, "timestep": TIMESTEP}
GRAPHS = AccelerationSettings(compile="graphs")

REFUSED = {
    "chroma": "copies constants from the host",
    "cogview4": "texts come in many lengths",
    "hidream": "the choice of its experts",
    "lumina2": "reads the lengths of its texts",
    "qwen-image": "the shape of its encoder_hidden_states differs",
    "z-image": "the shape of its x differs",
}
RECORDED = sorted(FAMILIES.keys() - REFUSED)

COMPILED = ["sd15", "sdxl", "hunyuan-dit", "flux-dev"]
"""Families that cover all denoiser arguments: integers, dictionaries, constants, tuples."""


class Denoiser(torch.nn.Module):
    """Minimal denoiser: every input affects the output, and rows do not affect each other."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 1.0

    def forward(self, sample: Any, timestep: Any, shared: Any = None) -> tuple[torch.Tensor]:
        extra = 0 if shared is None else shared.sum()
        return (2 * sample + timestep.view(-1, 1, 1) + self.shift + extra,)


def make_call(value: float = 0, side: int = 4, row_count: int = 1, **others: Any) -> dict[str, Any]:
    sample = torch.full((row_count, side, side), float(value))
    return {"sample": sample, "timestep": torch.tensor(10), **others}


def make_forward(denoiser: torch.nn.Module | None = None, **options: Any) -> BucketedForward:
    settings = {"widths": [1, 2, 4], "backend": "eager", "hot_forwards": 0, **options}
    return BucketedForward(denoiser or Denoiser(), RULE, CPU, **settings)


def prepare(forward: BucketedForward, arguments: Mapping[str, Any]) -> int:
    """Prepare forwards like this one, as a batcher does; return the number of turns."""
    turn_count = 0
    while not forward.is_ready(arguments):
        forward.prepare(arguments)
        turn_count += 1
    return turn_count


def run(forward: Any, *calls: Mapping[str, Any]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [output[0] for output in Merger(Denoiser(), RULE).run(forward, calls)]


def make_model(
    family: str, batching: BatchingSettings = MERGING, **options: Any
) -> tuple[LoadedModel, BucketedForward]:
    """Load a family's pipeline with prepared forwards, but without real compilation."""
    pipeline = make_pipeline(family)
    denoiser = getattr(pipeline, find_denoiser_name(pipeline))
    rule = RULES[type(pipeline).__name__]
    graphs = BucketedForward(denoiser, rule, CPU, backend="eager", **options)
    return reload(pipeline, batching, graphs=graphs), graphs


@pytest.mark.parametrize(
    "family",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in COMPILED[:-1]), COMPILED[-1]],
)
def test_padded_latents_are_those_of_each_alone(family: str) -> None:
    plain = reload(make_pipeline(family))
    model, _ = make_model(family, widths=[4])
    alone = [run_to_latents([job])[0] for job in make_jobs(plain, schedulers_of(plain))]
    jobs = make_jobs(model, schedulers_of(model))
    merged = run_to_latents(jobs, turns_between=1)
    assert max(max(job.widths) for job in jobs) > 2
    for latents, expected in zip(merged, alone, strict=True):
        assert (latents - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("family", RECORDED)
def test_forwards_that_can_be_recorded_touch_nothing_on_the_host(family: str) -> None:
    """A graph records device work only: it cannot copy from the host or wait for it."""
    model = reload(make_pipeline(family))
    job = make_job(model, Recorder())
    with torch.no_grad():
        job.images[0].start()
    call = job.images[0].operation
    assert isinstance(call, Forward)
    rule = RULES[type(model.adapter.pipeline).__name__]
    padded = {
        name: rule[name].pad(value, call.row_count, 4) if name in rule else value  # type: ignore[misc]
        for name, value in call.arguments.items()
    }

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            tensors = [each for each in tree_leaves(output) if isinstance(each, torch.Tensor)]
            assert all(each.device.type == "meta" for each in tensors), func
            return output

    on_device = tree_map(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, padded)
    with torch.inference_mode(), Watch():  # type: ignore[no-untyped-call]
        model.denoiser.to("meta")(**on_device)


@pytest.mark.parametrize("family", REFUSED)
def test_families_whose_forwards_cannot_be_recorded_are_refused(family: str) -> None:
    with pytest.raises(AccelerationError, match=f'"graphs".*{REFUSED[family]}.*try "regional"'):
        accelerate(make_pipeline(family), GRAPHS, CPU)


def test_nothing_is_compiled_while_callers_come_and_go() -> None:
    noted: list[Compilation] = []
    forward = make_forward(note=noted.append)
    assert prepare(forward, make_call()) == 4  # one width per turn, and a last turn to record them
    for width in (1, 3, 2, 4, 1):
        outputs = run(forward, *(make_call(value) for value in range(width)))
        assert [output[0, 0, 0].item() for output in outputs] == [
            2 * value + 10 + 1 for value in range(width)
        ]
    assert forward.profile(make_call()) == {1: None, 2: None, 4: None}
    assert not noted


def test_each_image_has_two_rows_where_calls_have() -> None:
    forward = make_forward()
    prepare(forward, make_call(row_count=2))
    assert forward.is_ready(make_call(row_count=1))
    assert list(forward.profile(make_call())) == [2, 4, 8]


class StaticRecorder(CallRecorder):
    """Recorder like a CUDA graph, whose runs write their output to the same memory."""

    def record(self, run: Run) -> Run:
        (output,) = run()

        def replay() -> tuple[torch.Tensor]:
            output.copy_(run()[0])
            return (output,)

        return replay


def test_what_a_forward_returned_stays_when_the_next_one_runs() -> None:
    forward = make_forward(recorder=StaticRecorder())
    prepare(forward, make_call())
    [first] = run(forward, make_call(1))
    before = first.clone()
    run(forward, make_call(2))
    assert torch.equal(first, before)


def test_quantized_denoisers_run_in_the_mode_that_they_were_prepared_in() -> None:
    """Tensors made in inference mode cannot be written to outside of it."""
    denoiser = Denoiser()
    weight = torch.zeros(1)
    quantized: Any = TwoTensor(weight, weight.clone())  # type: ignore[no-untyped-call]
    denoiser.weight = torch.nn.Parameter(quantized, requires_grad=False)
    forward = make_forward(denoiser)
    with torch.no_grad():
        prepare(forward, make_call(1))
        [(result,)] = Merger(denoiser, RULE).run(forward, [make_call(1)])
    assert list(forward.profile(make_call())) == [1, 2, 4]
    assert result.eq(2 + 10 + 1).all()


def test_nan_stays_in_its_row() -> None:
    forward = make_forward()
    prepare(forward, make_call())
    calls = [make_call(1), make_call(2), make_call(torch.nan)]  # the last is repeated
    first, second, third = run(forward, *calls)
    assert third.isnan().all()
    assert [each.isnan().any().item() for each in (first, second)] == [False, False]
    assert not run(forward, *(make_call(value) for value in range(3)))[2].isnan().any()


def test_constants_of_a_call_are_those_of_its_own_forward() -> None:
    forward = make_forward()
    prepare(forward, make_call(shared=torch.zeros(3)))
    [output] = run(forward, make_call(shared=torch.ones(3)))
    assert output[0, 0, 0] == 10 + 1 + 3
    assert not forward.is_ready(make_call(shared=torch.ones(4)))


def test_integers_and_floats_are_the_same_timesteps() -> None:
    forward = make_forward()
    prepare(forward, make_call())
    for timestep in (5, 5.0, torch.tensor(5), torch.tensor([5.0])):
        arguments = {**make_call(), "timestep": timestep}
        assert forward.is_ready(arguments)
        assert run(forward, arguments)[0][0, 0, 0] == 5 + 1


def test_a_forward_that_is_compiled_again_sounds_the_alarm() -> None:
    noted: list[Compilation] = []
    denoiser = Denoiser()
    forward = make_forward(denoiser, note=noted.append, model="tiny")
    prepare(forward, make_call())
    denoiser.shift = 3.0  # a constant of the compiled code
    with structlog.testing.capture_logs() as logs:
        [output] = run(forward, make_call())
        run(forward, make_call())
    assert output[0, 0, 0] == 10 + 3
    assert noted == [("tiny", "recompile")]
    [line] = logs
    assert (line["event"], line["log_level"]) == ("recompiled", "warning")
    assert (line["model"], line["shapes"]["sample"]) == ("tiny", (1, 4, 4))


def test_another_size_is_prepared_once_it_is_used_much() -> None:
    noted: list[Compilation] = []
    forward = make_forward(hot_forwards=3, note=noted.append, model="tiny")
    prepare(forward, make_call())
    for _ in range(3):
        assert forward.is_ready(make_call(side=6))  # runs without compilation
        assert run(forward, make_call(1, side=6))[0].eq(2 + 10 + 1).all()
    assert not noted
    with structlog.testing.capture_logs() as logs:
        prepare(forward, make_call(side=6))
    assert noted == [("tiny", "new_shape")]
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("new_shape", "info"),
        ("shape_prepared", "info"),
    ]
    assert run(forward, make_call(1, side=6))[0].eq(2 + 10 + 1).all()


def test_the_size_that_was_not_used_for_longest_makes_room() -> None:
    forward = make_forward(most_shapes=2, idle_s=0)
    for side in (4, 5):
        prepare(forward, make_call(side=side))
    run(forward, make_call(side=4))
    prepare(forward, make_call(side=6))
    assert [side for side in (4, 5, 6) if forward.profile(make_call(side=side))] == [4, 6]


def test_sizes_that_are_in_use_keep_their_graphs() -> None:
    """With more sizes than fit, each would evict the graphs that another needs next."""
    forward = make_forward(most_shapes=2)
    for side in (4, 5):
        prepare(forward, make_call(side=side))
    assert prepare(forward, make_call(side=6)) == 0
    assert run(forward, make_call(1, side=6))[0].eq(2 + 10 + 1).all()
    assert all(forward.profile(make_call(side=side)) for side in (4, 5))


class Picky(Denoiser):
    """Denoiser that cannot be compiled for more than a number of rows."""

    def __init__(self, most_rows: int) -> None:
        super().__init__()
        self.most_rows = most_rows

    def forward(self, sample: Any, timestep: Any, shared: Any = None) -> tuple[torch.Tensor]:
        if torch.compiler.is_compiling() and len(sample) > self.most_rows:
            raise torch.OutOfMemoryError("of a device")
        return super().forward(sample, timestep, shared)


@pytest.mark.parametrize(("most_rows", "widths"), [(0, []), (1, [1]), (2, [1, 2])])
def test_widths_that_cannot_be_prepared_are_done_without(most_rows: int, widths: list[int]) -> None:
    forward = make_forward(Picky(most_rows))
    with structlog.testing.capture_logs() as logs:
        prepare(forward, make_call())
    assert list(forward.profile(make_call())) == widths
    assert [line["event"] for line in logs] == ["bucket_failed", "shape_prepared"]
    assert run(forward, make_call(1), make_call(2))[1].eq(4 + 10 + 1).all()


def test_forwards_are_timed_until_a_width_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(bucket: Bucket, device: torch.device) -> float:
        assert measure_here(bucket, device) > 0
        return max(2, bucket.shapes["sample"][0])  # two rows take as long as one

    measure_here = Bucket.measure
    monkeypatch.setattr(Bucket, "measure", measure)
    forward = make_forward(is_measured=True, widths=[1, 2, 4, 8])
    assert prepare(forward, make_call()) == 4  # 8 is not tried
    assert forward.profile(make_call()) == {1: 2, 2: 2}


def test_a_call_of_more_rows_than_the_widest_bucket_has_one_made() -> None:
    forward = make_forward(widths=[1])
    prepare(forward, make_call())
    assert not forward.is_ready(make_call(row_count=2))
    assert forward.is_ready(make_call())
    prepare(forward, make_call(row_count=2))
    assert list(forward.profile(make_call())) == [1, 2]


@pytest.fixture
def prepared() -> tuple[LoadedModel, BucketedForward]:
    return make_model("sd3", widths=[1, 2])


def test_others_go_on_while_a_model_is_prepared(
    prepared: tuple[LoadedModel, BucketedForward],
) -> None:
    """A turn prepares one width, and still runs a forward of another model."""
    held_model, graphs = prepared
    held = make_job(held_model, Recorder())
    other = make_job(reload(make_pipeline("flux-schnell")), Recorder(), num_inference_steps=2)
    batcher = make_batcher()
    batcher.add(held)
    take_steps(batcher, 1)
    batcher.add(other)
    began_at: list[float | None] = []
    prepare_one = graphs.prepare

    def watch(arguments: Mapping[str, Any]) -> None:
        began_at.append(batcher.busy_since)
        prepare_one(arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(graphs, "prepare", watch)
        for turn in (1, 2):
            take_steps(batcher, 1)
            assert other.images[0].step_count == turn
        assert other.images[0].has_ended
        assert began_at == [None] * 2  # compiling for minutes must not look like a lost device
        take_steps(batcher)
    assert held.images[0].has_ended


def test_no_more_is_merged_than_forwards_are_prepared_for(
    prepared: tuple[LoadedModel, BucketedForward],
) -> None:
    model, _ = prepared
    jobs = [make_job(model, Recorder(), seed=seed) for seed in range(3)]
    run_jobs(*jobs)
    assert max(max(job.widths) for job in jobs) == 2
    assert model.cost_model(64, 96).has_room(2, 4)
    assert not model.cost_model(64, 96).has_room(3, 6)


def test_a_cancelled_size_holds_up_no_image(prepared: tuple[LoadedModel, BucketedForward]) -> None:
    model, _ = prepared
    job = make_job(model, Recorder())
    batcher = make_batcher()
    batcher.add(job)
    take_steps(batcher, 2)
    job.cancel()
    take_steps(batcher)
    assert draw(model) == draw(model)
