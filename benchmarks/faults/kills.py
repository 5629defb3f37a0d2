"""Kills: ends replicas behind Envoy by SIGKILL in mid-stream, and cancels generations by id.

Two services with the embedded model share nothing but Envoy. However often the one that works is
killed, the ordinary client gets the image of an undisturbed call. Each cancel by id reaches the
replica that holds the generation.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safelight import Client, GenerationOutcome, Progress

from benchmarks.harness.report import write_report
from support.fleet.replica import Replica, open_replicas
from support.running_envoy import run_envoy
from support.running_service import prepare_services

PROMPT = "a red circle on a blue background"
SIZE: dict[str, Any] = {"num_inference_steps": 40, "width": 64, "height": 64, "seed": 11}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="3 kills, 10 cancels and no file")
    is_rehearsal = parser.parse_args().rehearse
    kills, cancels = (3, 10) if is_rehearsal else (100, 100)
    prepare_services()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_replicas(2) as replicas,
        run_envoy(Path(folder), *(replica.target for replica in replicas)) as envoy,
    ):
        figures = {
            "cancels": cancel_by_id(envoy.address, cancels),
            "kills": survive_kills(envoy.address, replicas, kills),
        }
    if not is_rehearsal:
        write_report("kills", figures)
    sys.exit(not all(figure["is_intact"] for figure in figures.values()))


def survive_kills(entry: str, replicas: Sequence[Replica], count: int) -> dict[str, Any]:
    """Kill the replica that runs a generation, `count` times."""
    with Client(replicas[0].target) as client, client.generate(PROMPT, **SIZE) as generation:
        undisturbed = generation.images()[0].sha256
    right_count, longest_s = 0, 0.0
    for number in range(count):
        name = f"killed-{number}"
        began_at = time.monotonic()
        holder: Replica | None = None
        with Client(entry) as client, client.generate(PROMPT, generation_id=name, **SIZE) as stream:
            for event in stream:
                if isinstance(event, Progress) and holder is None:
                    holder = next(replica for replica in replicas if replica.holds(name))
                    holder.kill()
            right_count += stream.images()[0].sha256 == undisturbed
        longest_s = max(longest_s, time.monotonic() - began_at)
        assert holder is not None
        holder.start()
    figure = {
        "kills": count,
        "right_images": right_count,
        "longest_s": round(longest_s, 2),
        "is_intact": right_count == count,
    }
    print(figure, flush=True)
    return figure


def cancel_by_id(entry: str, count: int) -> dict[str, Any]:
    """Cancel `count` generations by their ids, each over a connection of its own."""
    outcomes = []
    with Client(entry) as client:
        for number in range(count):
            name = f"cancelled-{number}"
            size = {**SIZE, "num_inference_steps": 150}
            with client.generate(PROMPT, generation_id=name, **size) as stream:
                next(stream)
                with Client(entry) as other:
                    outcomes.append(other.cancel(name))
    cancelled_count = outcomes.count(GenerationOutcome.CANCELLED)
    figure = {
        "cancels": count,
        "cancelled": cancelled_count,
        "is_intact": cancelled_count == count,
    }
    print(figure, flush=True)
    return figure


if __name__ == "__main__":
    main()
