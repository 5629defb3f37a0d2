"""GPU benchmarks: a rehearsal on the CPU, isolated stages, and the report."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.architectures import ARCHITECTURES, make_pipeline
from benchmarks.gpu.measurements.trace import Gap, Interval, Usage
from benchmarks.gpu.report import BEGIN, END
from benchmarks.gpu.reporting.figures import Figures
from benchmarks.gpu.reporting.goals import GOALS
from benchmarks.gpu.reporting.tables import render, render_goals
from benchmarks.gpu.stages import STAGES
from safelight_service.engine.models.loading import load_model
from safelight_service.settings import ModelSettings
from tests.benchmarks.faulty_stages import PIPE_VARIABLE

ROOT = Path(__file__).parents[2]
MADE_UP_MACHINE = {"gpu": "Made-up GPU", "torch": "0", "diffusers": "0", "is_rehearsal": False}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def run_faulty(folder: Path, plan: str) -> list[dict[str, Any]]:
    ended = run("-m", "tests.benchmarks.faulty_stages", str(folder), plan)
    assert ended.returncode == 0, ended.stderr
    return read(folder)


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def by_stage(lines: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    return {line["stage"]: line for line in lines if line["name"] == name}


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        yield reader, writer
    finally:
        os.close(reader)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A run of stages that fail in all ways: its folder and its lines."""
    folder = tmp_path_factory.mktemp("faulty")
    return folder, run_faulty(folder, "faulty")


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a rehearsal of some stages, from a bare checkout."""
    folder = tmp_path_factory.mktemp("rehearsal")
    stages = "options", "card", "sd15", "sd15-served", "encoders"
    options = "--rehearse", "--out", str(folder), "--only", *stages
    ended = run("-m", "tests.benchmarks.bare_checkout", *options)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_a_figure_that_fails_is_written_down_and_the_next_is_measured(
    faulty: tuple[Path, list[dict[str, Any]]],
) -> None:
    first, second = (line for line in faulty[1] if line["name"] in ("first", "second"))
    assert (first["width"], first["half"]) == (1, 0.5)
    assert (first["error"], first["text"]) == ("ValueError", "of no use")
    assert first["where"][-1].endswith("fail_once")
    assert (second["width"], second["whole"]) == (2, 1)
    assert "error" not in second


def test_a_stage_that_fails_dies_or_hangs_costs_only_itself(
    faulty: tuple[Path, list[dict[str, Any]]],
) -> None:
    endings = {stage: line["ending"] for stage, line in by_stage(faulty[1], "ended").items()}
    assert endings == {
        "fail_once": "done",
        "fail": "failed",
        "die": "killed by SIGKILL",
        "hang": "timed out",
        "leave_a_process_behind": "done",
        "talk": "done",
    }
    assert by_stage(faulty[1], "failed")["fail"]["text"] == "nothing to measure"


def test_what_stages_print_and_why_they_failed_is_in_the_log(
    faulty: tuple[Path, list[dict[str, Any]]],
) -> None:
    log = (faulty[0] / "log.txt").read_text()
    assert "of interest to nobody" in log
    assert "RuntimeError: nothing to measure" in log


def test_processes_of_a_stage_end_with_it(tmp_path: Path) -> None:
    with pipe() as (reader, writer):
        command = [sys.executable, "-m", "tests.benchmarks.faulty_stages", str(tmp_path), "faulty"]
        subprocess.run(
            command, cwd=ROOT, pass_fds=[writer], stdout=subprocess.DEVNULL, check=True, timeout=60
        )
        os.close(writer)
        # End of file comes once the last process with the other end has ended.
        assert select.select([reader], [], [], 60)[0]
        assert os.read(reader, 1) == b""


def test_figures_are_on_disk_while_their_stage_still_runs(tmp_path: Path) -> None:
    with pipe() as (reader, writer):
        command = [sys.executable, "-m", "tests.benchmarks.faulty_stages", str(tmp_path), "hanging"]
        with subprocess.Popen(
            command,
            cwd=ROOT,
            pass_fds=[writer],
            stdout=subprocess.DEVNULL,
            env={**os.environ, PIPE_VARIABLE: str(writer)},
        ) as driver:
            os.close(writer)
            assert os.read(reader, 1) == b"."
            assert [line["name"] for line in read(tmp_path)] == ["began", "measured"]
            driver.send_signal(signal.SIGINT)
        assert os.read(reader, 1) == b""  # the stage has also ended


def test_a_stage_that_there_is_no_time_for_is_skipped_and_a_shorter_one_is_not(
    tmp_path: Path,
) -> None:
    lines = run_faulty(tmp_path, "late")
    assert by_stage(lines, "skipped")["fail"]["expected_s"] == 1e6
    assert by_stage(lines, "ended")["talk"]["ending"] == "done"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_fails_and_names_the_rehearsal(tmp_path: Path) -> None:
    ended = run("-m", "benchmarks.gpu", "--out", str(tmp_path))
    assert ended.returncode == 1
    assert "there is no GPU" in ended.stderr
    assert "--rehearse" in ended.stderr
    assert not (tmp_path / "results.jsonl").exists()


def test_an_unknown_stage_is_refused_with_those_that_there_are() -> None:
    ended = run("-m", "benchmarks.gpu", "--only", "sd16")
    assert ended.returncode == 2
    assert "--only" in ended.stderr
    assert all(stage.name in ended.stderr for stage in STAGES)


@pytest.mark.slow
def test_a_rehearsal_measures_and_its_report_shows_what_it_measured(
    rehearsal: Path, tmp_path: Path
) -> None:
    figures = Figures.read(rehearsal / "results.jsonl")
    assert set(figures.endings.values()) == {"done"}
    assert not list(figures.failures())
    assert {figure.name for figure in figures.figures} >= {
        "option",
        "continued",
        "arithmetic",
        "forward",
        "usage",
        "decode",
        "overhead",
        "served",
        "encoder",
    }
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    (tmp_path / "images").mkdir()
    plot = tmp_path / "images" / "plot.svg"
    command = "-m", "benchmarks.gpu.report", str(rehearsal), "--page", str(page)
    ended = run(*command, "--plot", str(plot))
    assert ended.returncode == 0, ended.stderr
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "its figures mean nothing" in text
    for head in ("| model | variant | 1 | 2 |", "| encoder |", "images/plot.svg"):
        assert head in text
    assert "SD1.5 64² eager" in plot.read_text()


@pytest.mark.slow
def test_a_rehearsal_is_not_written_into_the_documentation(rehearsal: Path) -> None:
    ended = run("-m", "benchmarks.gpu.report", str(rehearsal))
    assert ended.returncode == 1
    assert "do not belong into docs/performance.md" in ended.stderr


def figures_of(tmp_path: Path, *lines: Mapping[str, object]) -> Figures:
    """Read made-up lines; no number in these tests is a measurement."""
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps({"t": 0, **line}) + "\n" for line in lines))
    return Figures.read(file)


def machine(**facts: object) -> Mapping[str, object]:
    return {"stage": "machine", "name": "machine", **MADE_UP_MACHINE, **facts}


def test_goals_are_judged_by_the_figures(tmp_path: Path) -> None:
    served = {"stage": "flux-served", "name": "served", "side_px": 512, "latency_s": 1}
    figures = figures_of(
        tmp_path,
        machine(),
        {"stage": "sd15-served", "name": "overhead", "overhead": 0.015},
        {"stage": "sdxl-served", "name": "overhead", "overhead": 0.04},
        {**served, "callers": 1, "images_per_s": 0.5},
        {**served, "callers": 4, "images_per_s": 1.75},
    )
    text = render_goals(figures)
    assert "| Overhead over the bare pipeline, SD1.5 | ≤ 2.0% | 1.5%, met |" in text
    assert "| Overhead over the bare pipeline, SDXL | ≤ 2.0% | 4.0%, not met |" in text
    assert "| FLUX.1-dev at 512², 4 callers against one | ≥ 3.20 x | 3.50 x, met |" in text
    assert text.count("not measured yet") == len(GOALS) - 3


@pytest.mark.parametrize(("gpu", "is_meant"), [("NVIDIA H100 80GB", True), ("NVIDIA H200", False)])
def test_the_report_names_the_gpu_and_whether_the_goals_are_for_another(
    tmp_path: Path, gpu: str, is_meant: bool
) -> None:
    text = render(figures_of(tmp_path, machine(gpu=gpu, gpu_gib=139.8)))
    assert f"Measured on one {gpu} (139.8 GiB)" in text
    assert ("The goals were set for one H100." in text) is not is_meant


def test_options_of_requests_are_in_the_report(tmp_path: Path) -> None:
    text = render(
        figures_of(
            tmp_path,
            machine(),
            {"stage": "options", "name": "option", "family": "sd15", "option": "adapters"}
            | {"merged_to_alone": 1, "to_cpu": 2},
            {"stage": "options", "name": "continued", "family": "sd15"}
            | {"logged_steps": 6, "to_first": 0},
            {"stage": "sd15-options", "name": "cost", "option": "logs", "side_px": 512}
            | {"steps": 30, "callers": 8, "images_per_s": 1.5, "ratio": 0.96},
            {"stage": "loading", "name": "load", "way": "directly", "gib": 4.78}
            | {"first_s": 1.25, "second_s": 1.0},
        )
    )
    assert "| sd15 | adapters | 1 | 2 |" in text
    assert "| an image of sd15, again from its log | 6 steps logged; differs by 0 |" in text
    assert "| SD1.5 512² | 30 | 8 | logs | 1.50 | 0.96 |" in text
    assert "| directly | 4.78 | 1.25 | 1.00 |" in text


def test_what_was_not_measured_is_listed_with_the_reason(tmp_path: Path) -> None:
    text = render(
        figures_of(
            tmp_path,
            machine(),
            {"stage": "flux", "name": "skipped"},
            {"stage": "sd15", "name": "began"},
            {"stage": "sd15", "name": "forward", "width": 4, "error": "OSError", "text": "a\n b"},
            {"stage": "sd15", "name": "ended", "ending": "timed out"},
        )
    )
    assert "| flux | skipped |" in text
    assert "| sd15 | timed out |" in text
    assert "| sd15: forward, width 4 | OSError: a b |" in text


def test_a_stage_that_is_run_again_replaces_its_figures_and_one_that_is_skipped_does_not(
    tmp_path: Path,
) -> None:
    began, skipped = ({"stage": "sd15", "name": name} for name in ("began", "skipped"))
    ended = {"stage": "sd15", "name": "ended", "ending": "done"}

    def decoded(ms: int) -> Mapping[str, object]:
        return {"stage": "sd15", "name": "decode", "decode_ms": ms}

    twice = machine(), began, decoded(1), ended, machine(), began, decoded(2), ended, skipped
    figures = figures_of(tmp_path, *twice)
    assert [figure.values["decode_ms"] for figure in figures.all("decode")] == [2]
    assert figures.endings == {"sd15": "done"}


def test_figures_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two machines"):
        figures_of(tmp_path, machine(), machine(gpu="Another made-up GPU"))


def test_time_in_which_streams_overlap_counts_once() -> None:
    usage = Usage.of(
        Interval(1000.0 * began_at, 1000.0 * ended_at, name)
        for began_at, ended_at, name in ((0, 4, "a"), (1, 2, "b"), (7, 9, "c"), (8, 10, "d"))
    )
    assert usage.wall_ms == 10
    assert usage.busy_share == pytest.approx(0.7)
    assert usage.gaps == [Gap(3, "a", "c")]


def test_the_documentation_names_all_goals_between_the_marks() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    written = page.partition(BEGIN)[2].partition(END)[0]
    assert all(f"| {goal.text} | {goal.describe()} |" in written for goal in GOALS)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_are_loaded_as_the_service_loads_them(
    tmp_path: Path, architecture: str
) -> None:
    make_pipeline(architecture, torch.device("cpu"), shrunk=True).save_pretrained(tmp_path)
    model = load_model(ModelSettings(name=architecture, source=str(tmp_path), device="cpu"))
    assert model.capabilities.has_previews


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_schedulers_stay_on_the_cpu_when_an_architecture_is_built_elsewhere(
    architecture: str,
) -> None:
    pipeline: Any = make_pipeline(architecture, torch.device("meta"), shrunk=True)
    tensors = [value for value in vars(pipeline.scheduler).values() if torch.is_tensor(value)]
    assert tensors
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert pipeline.vae.device.type == "meta"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_of_an_architecture_is_in_training(architecture: str) -> None:
    pipeline: Any = make_pipeline(architecture, torch.device("meta"), shrunk=True)
    modules = [each for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    assert len(modules) >= 3
    assert not any(module.training for module in modules)
