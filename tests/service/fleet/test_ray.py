"""A Ray cluster: engines that are killed, replaced, started at need and observed."""

import asyncio
import functools
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import safelight
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from safelight_service.app import make_remote_backend
from safelight_service.core.events import Accepted, Event, Image, Progress, Queued, Restarted
from safelight_service.core.model import ModelState
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.timeline import Timeline
from safelight_service.grpc_server.server import Server
from safelight_service.settings import PoolSettings, RaySettings, RecoverySettings, Settings
from support.engine.job_runs import SMALL
from support.engine.tiny_models import TinyModels
from support.fleet.ray_cluster import RayCluster, deploy_engines, make_pool
from support.fleet.sleeping_engine import (
    make_engine_of,
    make_sleeping_engine,
    sleeping_settings,
)
from support.otlp_receiver import Receiver
from tests.service.fleet.backends import (
    REQUEST,
    become,
    begin,
    cancel,
    generate,
    has_logs,
    settings_of,
)

pytestmark = pytest.mark.ray

LONG = replace(REQUEST, parameters=Parameters(**{**SMALL, "num_inference_steps": 300}))
GENERATE = "safelight.v1.TextToImageService/Generate"
LIMIT_S = 100


def of_steps(count: int) -> GenerationRequest:
    return GenerationRequest("a red circle", Parameters(num_inference_steps=count))


def images_of(events: list[Event]) -> list[str]:
    return [event.sha256 for event in events if isinstance(event, Image)]


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[safelight.AsyncClient]:
    """Open a front, and a client of it."""
    settings = settings.model_copy(update={"listen": "127.0.0.1:0", "grace_s": 0})
    make_backend = functools.partial(make_remote_backend, settings)
    async with (
        Server(settings, make_backend) as server,
        safelight.AsyncClient(server.address) as client,
    ):
        yield client


def test_generations_survive_the_death_of_their_engine_and_leave_no_logs(
    ray_address: str, tiny_models: TinyModels, tmp_path: Path
) -> None:
    recovery = RecoverySettings(folder=tmp_path)
    settings = settings_of(tiny_models).model_copy(update={"recovery": recovery})
    with deploy_engines(ray_address, settings, make_pool(2)) as cluster:

        async def main() -> None:
            async with asyncio.timeout(LIMIT_S), cluster.open() as backend:
                undisturbed = images_of(await generate(backend, LONG))
                running = await begin(backend, LONG, Progress)
                await asyncio.to_thread(cluster.kill_busy)
                events = await running
                assert images_of(events) == undisturbed
                assert sum(isinstance(event, Accepted) for event in events) == 1
                [restarted] = [event for event in events if isinstance(event, Restarted)]
                before = events[: events.index(restarted)]
                reached = max(event.step for event in before if isinstance(event, Progress))
                assert restarted.recovered_step_count >= reached - 2
                timeline = Timeline()
                running = await begin(backend, replace(LONG, run_key="key"), Progress, timeline)
                await become(lambda: has_logs(tmp_path))
                timeline.cancelled_at = time.monotonic()
                await cancel(running)
                await become(lambda: not has_logs(tmp_path))

        asyncio.run(main())


def test_the_first_request_starts_an_engine_and_idling_ends_it(ray_address: str) -> None:
    pool = PoolSettings(name="rare", min_engines=0, max_engines=1, idle_s=1, cpus=0.1)
    settings = sleeping_settings()
    with deploy_engines(ray_address, settings, pool, make_sleeping_engine) as cluster:

        async def main() -> None:
            async with asyncio.timeout(LIMIT_S), open_client(cluster.settings) as client:
                assert [model.state for model in await client.list_models()] == ["not loaded"]
                assert cluster.count_engines() == 0
                await client.text_to_image("a red circle")
                assert cluster.count_engines() == 1
                while cluster.count_engines():
                    await client.list_models()  # what the front looks up is no load
                await client.text_to_image("a blue square")

        asyncio.run(main())


def test_generations_survive_an_update(ray_address: str) -> None:
    make_engine = functools.partial(make_sleeping_engine, step_s=0.02, width=12)
    pool = make_pool(2)
    with deploy_engines(ray_address, sleeping_settings("1"), pool, make_engine) as cluster:

        async def main() -> None:
            async with asyncio.timeout(LIMIT_S), open_client(cluster.settings) as client:
                updating = asyncio.create_task(
                    asyncio.to_thread(cluster.update, sleeping_settings("2"), make_engine)
                )
                revisions = Counter[str]()

                async def keep_generating() -> None:
                    while not updating.done():
                        async with client.generate("a star", num_inference_steps=50) as generation:
                            kinds = {type(event): event async for event in generation}
                        assert safelight.Completed in kinds
                        accepted = kinds[safelight.Accepted]
                        assert isinstance(accepted, safelight.Accepted)
                        revisions[accepted.model_revision] += 1

                await asyncio.gather(*(keep_generating() for _ in range(12)))
                await updating
                assert revisions.keys() == {"1", "2"}

        asyncio.run(main())


def test_waiting_work_leaves_an_engine_that_stops(ray_address: str) -> None:
    make_engine = make_engine_of(step_s=1, width=1)
    settings = sleeping_settings().model_copy(update={"grace_s": 600})
    with deploy_engines(ray_address, settings, make_pool(1), make_engine) as cluster:

        async def main() -> None:
            async with asyncio.timeout(LIMIT_S), cluster.open() as backend:
                running = await begin(backend, of_steps(1000), Progress)
                waiting = await begin(backend, of_steps(1), Queued)
                updating = asyncio.create_task(
                    asyncio.to_thread(cluster.update, settings, make_engine)
                )
                assert images_of(await waiting)
                assert not running.done()
                await cancel(running)
                await updating

        asyncio.run(main())


def test_a_frozen_engine_hides_no_other(ray_address: str) -> None:
    with deploy_engines(
        ray_address, sleeping_settings(), make_pool(2), make_sleeping_engine
    ) as cluster:
        process = cluster.list_processes()[0][0]

        async def main() -> None:
            async with asyncio.timeout(LIMIT_S), cluster.open() as backend:
                assert backend.get_model("").state is ModelState.READY

        os.kill(process, signal.SIGSTOP)
        try:
            asyncio.run(main())
        finally:
            os.kill(process, signal.SIGCONT)


def test_a_cluster_without_engines_is_an_error(ray_address: str) -> None:
    ray = RaySettings(address=ray_address, application="another")
    settings = sleeping_settings().model_copy(update={"ray": ray})
    with pytest.raises(ConnectionError, match="another-engines"):
        make_remote_backend(settings)


@pytest.mark.parametrize("is_of_ray", [True, False])
def test_calls_to_dead_engines_leave_no_errors_in_the_log(
    is_of_ray: bool, caplog: pytest.LogCaptureFixture
) -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    from safelight_service.fleet.ray_serve.connection import is_no_cancelled_call

    async def fail() -> None:
        raise exceptions.RayError if is_of_ray else OSError

    async def main() -> None:
        failing = asyncio.ensure_future(fail())
        await asyncio.wait({failing})
        del failing

    logger = logging.getLogger("asyncio")
    logger.addFilter(is_no_cancelled_call)
    asyncio.run(main())
    logger.removeFilter(is_no_cancelled_call)
    assert ("never retrieved" in caplog.text) != is_of_ray


def test_a_cluster_that_does_not_answer_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        variables = {"SAFELIGHT_RAY__ADDRESS": address, "SAFELIGHT_RAY__CONNECT_S": "1"}
        commands = [
            subprocess.Popen(
                [sys.executable, "-m", "safelight_service", *arguments],
                env=os.environ | variables,
                stderr=subprocess.PIPE,
                text=True,
            )
            for arguments in (["--backend", "ray"], ["ray", "deploy"])
        ]
        for command in commands:
            assert (
                f"the Ray cluster at {address} does not answer within 1 s"
                in (command.communicate(timeout=LIMIT_S)[1])
            )
            assert command.returncode == 1


def test_serve_logs_like_other_libraries(
    ray_cluster: RayCluster,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_remote_backend(ray_cluster.settings)
    logging.getLogger("ray.serve").warning("a replica is slow")
    assert caplog.messages == ["a replica is slow"]
    assert capsys.readouterr().err == ""


def test_a_trace_goes_on_in_the_engine(
    ray_cluster: RayCluster,
    receiver: Receiver,
    exporting: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in exporting.items():
        monkeypatch.setenv(name, value)
    trace_id = secrets.token_hex(16)
    caller = NonRecordingSpan(
        SpanContext(int(trace_id, 16), 1, is_remote=False, trace_flags=TraceFlags(1))
    )

    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), open_client(ray_cluster.settings) as client:
            with use_span(caller):
                await client.text_to_image("a red circle", **SMALL)

    asyncio.run(main())
    spans = receiver.wait_for_trace(trace_id, GENERATE, "denoise", "image_encode", "forward")
    names = Counter(span.name for span in spans)
    assert {names[each] for each in ("queue", "denoise", "decode", "image_encode")} == {1}
    receiver.wait_for_metrics("safelight.forward.duration", "safelight.device.busy")
