"""`make bench-gpu`: measures the service on a GPU in stages, or rehearses on the CPU.

Writes each figure to OUT/results.jsonl at once, and the stages' output to OUT/log.txt.
`python -m benchmarks.gpu.report OUT` then updates the tables and the plot of docs/performance.md.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.driver import Stage, load, run_in_fork, run_stages
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session
from benchmarks.gpu.stages import STAGES

_ENVIRONMENT = {
    # Keeps imports from initialising CUDA, which would not survive the forks.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",  # its name before torch 2.10
    "HF_HUB_OFFLINE": "1",
    "OPENBLAS_NUM_THREADS": "1",  # a process with threads cannot fork safely
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}
_REHEARSAL_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # layers this small run slower on several threads
    "TORCH_COMPILE_DISABLE": "1",  # takes minutes on a CPU
}
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEADLINE_S, _REHEARSAL_DEADLINE_S = 480.0, 290.0
_OUT, _REHEARSAL_OUT = Path("benchmarks/results/gpu"), Path("build/gpu-rehearsal")
_REHEARSED_STAGE_S = 5.0
_REHEARSAL_LIMIT_S = 120.0
_LOOK_LIMIT_S = 120.0  # on a fresh machine, libraries come from a cold disk


def main() -> None:
    """Run the command."""
    arguments = _parse(sys.argv[1:])
    is_rehearsal: bool = arguments.rehearse
    folder: Path = arguments.out or (_REHEARSAL_OUT if is_rehearsal else _OUT)
    folder.mkdir(parents=True, exist_ok=True)
    deadline_s = arguments.deadline or (_REHEARSAL_DEADLINE_S if is_rehearsal else _DEADLINE_S)
    session = Session(folder, is_rehearsal, time.monotonic(), arguments.torchao)
    os.environ |= _ENVIRONMENT | (_REHEARSAL_ENVIRONMENT if is_rehearsal else {}) | os.environ
    stages = _choose(arguments.only, is_rehearsal=is_rehearsal)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch  # also cleans up after killed stages
        if run_in_fork(lambda: _look_at_machine(session), session, _LOOK_LIMIT_S) != "done":
            sys.exit(
                "python -m benchmarks.gpu: there is no GPU that torch can use "
                f"(see {session.log}); --rehearse tries the benchmark on the CPU"
            )
        _import(stages)
        run_stages(stages, session, deadline_s)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    names = [stage.name for stage in STAGES]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        metavar="STAGE",
        help=f"stages to run, always in this order: {', '.join(names)} (default: all)",
    )
    parser.add_argument(
        "--deadline",
        type=_positive,
        metavar="S",
        help="seconds for all stages together; stages that no longer fit are skipped "
        f"(default: {_DEADLINE_S:.0f}, or {_REHEARSAL_DEADLINE_S:.0f} with --rehearse)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder of results, kept from run to run "
        f"(default: {_OUT}, or {_REHEARSAL_OUT} with --rehearse)",
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="try all stages on the CPU with shrunk models; the figures mean nothing",
    )
    parser.add_argument(
        "--torchao",
        type=Path,
        metavar="FOLDER",
        help="folder to import torchao from if it is not installed; flux-fp8 needs it",
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return seconds


def _choose(only: Sequence[str] | None, *, is_rehearsal: bool) -> list[Stage]:
    stages = [stage for stage in STAGES if only is None or stage.name in only]
    if is_rehearsal:
        return [
            replace(stage, expected_s=_REHEARSED_STAGE_S, limit_s=_REHEARSAL_LIMIT_S)
            for stage in stages
        ]
    return stages


def _import(stages: Sequence[Stage]) -> None:
    """Import the libraries of all stages before they fork, once.

    Hides the GPUs meanwhile: diffusers looks for them, which would initialise CUDA without NVML.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    visible = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = ""
    for stage in stages:
        load(stage)
    del os.environ[_VISIBLE]
    if visible is not None:
        os.environ[_VISIBLE] = visible


def _look_at_machine(session: Session) -> None:
    """Record the machine. Initialises CUDA, so it runs in its own process.

    Raises:
        AssertionError, RuntimeError: there is no GPU and this is not a rehearsal.
    """
    import torch

    from benchmarks.harness.report import describe_machine

    facts = describe_machine()
    if not session.is_rehearsal:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        facts["cuda"] = torch.version.cuda
        facts["gpu_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    recorder = Recorder(session.results, "machine", session.began_at)
    recorder.write("machine", is_rehearsal=session.is_rehearsal, **facts)


if __name__ == "__main__":
    main()
