"""Streaming: progress events per second with many streams, and their delay.

The delay of an event is its time from the end of the step to the client, beyond that of the
quickest event of the stream.
"""

import asyncio
import time
from dataclasses import asdict, dataclass

from safelight import AsyncClient, Progress

from benchmarks.harness.report import Percentiles, write_report
from support.running_service import run_service

STREAMS = (1, 16, 128)
STEPS = 40
SIDE_PX = 64


@dataclass(frozen=True, slots=True)
class Figure:
    """Progress events per second of all streams together, and their delay in milliseconds."""

    per_s: float
    delay_ms: Percentiles


def main() -> None:
    """Measure, print and save."""
    figures: dict[str, Figure] = {}
    print(f"{'streams':>8}{'events per second':>18}{'p50 ms':>9}{'p99 ms':>9}")
    with run_service(batching='{"max_width": 32}', queue_size=str(max(STREAMS))) as service:
        asyncio.run(watch(service.target, 1))
        for streams in STREAMS:
            figure = figures[str(streams)] = asyncio.run(watch(service.target, streams))
            delay = figure.delay_ms
            print(f"{streams:>8}{figure.per_s:>18.0f}{delay.p50:>9.1f}{delay.p99:>9.1f}")
    write_report("streaming", {streams: asdict(figure) for streams, figure in figures.items()})


async def watch(target: str, streams: int) -> Figure:
    """Watch `streams` generations at once."""
    delays: list[float] = []

    async def follow(client: AsyncClient, seed: int) -> None:
        ran_since = []
        async with client.generate(
            "a red circle",
            width=SIDE_PX,
            height=SIDE_PX,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            seed=seed,
        ) as events:
            async for event in events:
                if isinstance(event, Progress):
                    ran_since.append(time.monotonic() - event.elapsed_s)
        delays.extend(each - min(ran_since) for each in ran_since)

    async with AsyncClient(target) as client:
        begun_at = time.perf_counter()
        await asyncio.gather(*(follow(client, seed) for seed in range(streams)))
        seconds = time.perf_counter() - begun_at
    return Figure(len(delays) / seconds, Percentiles.of([1e3 * delay for delay in delays]))


if __name__ == "__main__":
    main()
