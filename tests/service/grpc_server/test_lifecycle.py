"""Lifecycle over the wire: joining, watching, replaying, cancelling and leaving generations."""

import asyncio
import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE, Popen
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from h2.events import DataReceived, ResponseReceived
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.app import make_server
from safelight_service.settings import LimitSettings, Settings
from support.engine.tiny_models import MERGING, TinyModels
from support.generation_stream import image_bytes, wait_for
from support.running_service import RunningService, run_service
from support.tcp_proxy import TcpProxy
from support.unharmed import LONG, make_control, unharmed, wait_until
from tests.service.grpc_server.h2_client import H2Client

LINGER = Duration(seconds=60)


@pytest.fixture
def stub(service: RunningService) -> Iterator[pb_grpc.TextToImageServiceStub]:
    with grpc.insecure_channel(service.target) as channel:
        yield pb_grpc.TextToImageServiceStub(channel)


def request(generation_id: str, steps: int = 12, **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        inputs="a red circle",
        parameters=pb.TextToImageParameters(num_inference_steps=steps, width=64, height=64),
        generation_id=generation_id,
        **fields,
    )


def reason_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return error.code(), info.reason


def test_the_same_request_joins_and_all_get_the_same_image(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    first = stub.Generate(request("joined"))
    accepted = wait_for(first, "accepted").accepted
    wait_for(first, "progress")
    again = list(stub.Generate(request("joined")))
    watched = list(stub.WatchGeneration(pb.WatchGenerationRequest(generation_id="joined")))
    # The request sets no seed; it is that of the generation.
    assert again[0].event == watched[0].event
    assert again[0].event.accepted == accepted
    assert image_bytes(again) == image_bytes(watched) == image_bytes(first)
    completed = again[-1].event.completed
    assert [width.image_count for width in completed.batch_widths] == [1]  # it ran once, alone


def test_cancelling_ends_the_streams_of_all_and_can_be_repeated(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    running = stub.Generate(request("cancelled", steps=150))
    wait_for(running, "progress")
    for _ in range(2):
        answer = stub.CancelGeneration(pb.CancelGenerationRequest(generation_id="cancelled"))
        assert answer.state == pb.GENERATION_STATE_CANCELLED
    with pytest.raises(grpc.RpcError) as raised:
        list(running)
    assert reason_of(raised.value) == (grpc.StatusCode.CANCELLED, "CANCELLED")


def test_what_is_not_known_is_not_found(stub: pb_grpc.TextToImageServiceStub) -> None:
    not_found = (grpc.StatusCode.NOT_FOUND, "GENERATION_NOT_FOUND")
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.WatchGeneration(pb.WatchGenerationRequest(generation_id="unknown")))
    assert reason_of(raised.value) == not_found
    with pytest.raises(grpc.RpcError) as raised:
        stub.CancelGeneration(pb.CancelGenerationRequest(generation_id="unknown"))
    assert reason_of(raised.value) == not_found


def test_a_lingering_generation_is_finished_for_a_returning_caller(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    left = stub.Generate(request("lingering", linger=LINGER))
    seed = wait_for(left, "accepted").accepted.parameters.seed
    left.cancel()
    back = list(stub.Generate(request("lingering", linger=LINGER)))
    assert back[0].event.accepted.parameters.seed == seed
    assert back[-1].event.HasField("completed")


def test_a_deadline_that_cannot_be_met_is_refused_at_once(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    """Fault 18: a generation that cannot be ready in time never starts."""
    list(stub.Generate(request("measured")))  # measures the cost of a step
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request("late", steps=150, image_count=8), timeout=3))
    assert reason_of(raised.value) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE")
    assert "but the images need about" in str(raised.value)


@pytest.mark.parametrize("linger", [Duration(seconds=-1), Duration(seconds=3601)])
def test_lingering_has_its_limits(linger: Duration, stub: pb_grpc.TextToImageServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request("too-long", linger=linger)))
    assert reason_of(raised.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "linger: must be from 0 to 3600 s" in str(raised.value)


def test_what_was_made_comes_from_the_cache_to_the_byte() -> None:
    seeded = request("first", steps=2)
    seeded.parameters.seed = 7
    with run_service(cache="{}") as service, grpc.insecure_channel(service.target) as channel:
        stub = pb_grpc.TextToImageServiceStub(channel)

        def generate(generation_id: str, use_cache: str) -> tuple[bytes, int, str]:
            seeded.generation_id = generation_id
            call = stub.Generate(seeded, metadata=(("x-use-cache", use_cache),))
            responses = list(call)
            reported = dict(call.trailing_metadata())["x-cache"]
            return image_bytes(responses), responses[-1].event.completed.cache, str(reported)

        image, *reported = generate("first", "true")
        assert reported == [pb.CACHE_STATUS_MISS, "miss"]
        assert generate("second", "1") == (image, pb.CACHE_STATUS_HIT, "hit")
        assert generate("third", "False") == (image, pb.CACHE_STATUS_BYPASS, "bypass")


def test_equal_requests_of_many_clients_at_once_are_made_once() -> None:
    """Fault 21: 8 identical requests at once, cache on."""
    seeded = request("", steps=30)
    seeded.parameters.seed = 7
    with (
        run_service(cache="{}") as service,
        grpc.insecure_channel(service.target) as channel,
        ThreadPoolExecutor(8) as threads,
    ):
        stub = pb_grpc.TextToImageServiceStub(channel)
        streams = list(threads.map(lambda _: list(stub.Generate(seeded)), range(8)))
    assert len({image_bytes(responses) for responses in streams}) == 1
    assert len({responses[0].event.accepted.generation_id for responses in streams}) == 8
    for responses in streams:
        completed = responses[-1].event.completed
        assert {width.image_count for width in completed.batch_widths} <= {1}


@pytest.fixture(scope="module")
def impatient() -> Iterator[RunningService]:
    """A service with short time limits."""
    connections = '{"max_age_s": 0.5, "keepalive_s": 0.5, "keepalive_timeout_s": 0.5}'
    with run_service(generations='{"max_s": 5}', connections=connections) as running:
        yield running


def test_a_call_that_is_cancelled_frees_the_device(service: RunningService) -> None:
    """Fault 10: in mid-step; test_step_batcher.py proves that no further step runs."""
    with unharmed(service) as stub:
        call = stub.Generate(LONG)
        wait_for(call, "progress")
        call.cancel()
        assert call.code() is grpc.StatusCode.CANCELLED


def test_calls_that_are_cancelled_right_after_an_event_all_free_the_device(
    service: RunningService,
) -> None:
    """Fault 11: a hundred of them."""
    with unharmed(service) as stub:
        for number in range(100):
            call = stub.Generate(request("", steps=150))
            for _ in range(1 + number % 3):
                next(call)
            call.cancel()
            assert call.code() is grpc.StatusCode.CANCELLED


def test_a_slow_reader_that_cancels_leaves_nothing_behind(service: RunningService) -> None:
    """Fault 13: no failure is logged, either."""
    logged = service.read_log()
    with unharmed(service) as stub, H2Client(service.target, window=0) as slow:
        stream = slow.call("Generate", LONG)
        while not isinstance(slow.read(), ResponseReceived):
            pass
        slow.reset(stream)
        make_control(stub)
    news = service.read_log().removeprefix(logged).splitlines()
    assert {"[info     ] generation_ended" in line for line in news} == {True}


def test_a_client_that_is_killed_frees_the_device(service: RunningService) -> None:
    """Fault 16: SIGKILL."""
    command = [sys.executable, "-m", "tests.service.grpc_server.killed_reader", service.target]
    with unharmed(service), Popen(command, stdout=PIPE, text=True) as client:
        assert client.stdout is not None
        assert "progress\n" in iter(client.stdout.readline, "")
        client.kill()


def test_a_connection_that_is_reset_frees_the_device(service: RunningService) -> None:
    """Fault 16: a TCP reset."""
    with unharmed(service), H2Client(service.target) as client:
        client.call("Generate", LONG)
        while not isinstance(client.read(), DataReceived):
            pass
        client.abort()


def test_a_channel_that_is_closed_frees_the_device(service: RunningService) -> None:
    with unharmed(service), grpc.insecure_channel(service.target) as channel:
        wait_for(pb_grpc.TextToImageServiceStub(channel).Generate(LONG), "progress")


def test_a_connection_that_went_dead_is_closed_and_frees_the_device(
    impatient: RunningService,
) -> None:
    """Fault 17: a silent connection that passes no data."""
    with (
        TcpProxy(impatient.target) as proxy,
        grpc.insecure_channel(proxy.target) as channel,
        unharmed(impatient),
    ):
        events = pb_grpc.TextToImageServiceStub(channel).Generate(LONG)
        wait_for(events, "progress")
        proxy.stall()


def test_a_deadline_that_is_missed_in_mid_generation_frees_the_device(
    service: RunningService,
) -> None:
    """Fault 19: at a size without measurements, since otherwise the service would refuse it.

    Its first steps show that it cannot finish in time, and it ends long before its deadline.
    """
    unknown = request("", steps=150, image_count=4)
    unknown.parameters.width = 72
    with unharmed(service) as stub:
        with pytest.raises(grpc.RpcError) as raised:
            list(stub.Generate(unknown, timeout=2))
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_no_generation_takes_longer_than_any_may(impatient: RunningService) -> None:
    """Fault 20: without a deadline, and with one in 24 hours."""
    with unharmed(impatient) as stub:
        for events in [stub.Generate(LONG, timeout=timeout) for timeout in (None, 86_400)]:
            with pytest.raises(grpc.RpcError) as raised:
                list(events)
            assert reason_of(raised.value) == (grpc.StatusCode.DEADLINE_EXCEEDED, "TIME_LIMIT")


def test_a_connection_that_grows_old_is_left_by_the_next_call_only(
    impatient: RunningService,
) -> None:
    """Fault 41: its running calls still finish."""
    with (
        TcpProxy(impatient.target) as proxy,
        grpc.insecure_channel(proxy.target) as channel,
        unharmed(impatient),
    ):
        events = pb_grpc.TextToImageServiceStub(channel).Generate(request("", steps=30))
        wait_for(events, "progress")
        wait_until(channel, lambda: proxy.connection_count, lambda count: count > 1)
        assert list(events)[-1].event.HasField("completed")


def test_an_image_larger_than_a_message_reaches_a_client_with_default_limits(
    tiny_models: TinyModels,
) -> None:
    """Fault 49: 2 megapixels of noise, in chunks of at most 1 MiB."""
    limits = LimitSettings(max_side_px=2048, max_pixel_count=2048 * 1024)
    model = tiny_models.settings("sana").model_copy(update={"limits": limits})
    settings = Settings(listen="127.0.0.1:0", models=(model,), batching=MERGING)

    async def generate() -> list[pb.GenerateResponse]:
        async with (
            make_server(settings) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            stub: Any = pb_grpc.TextToImageServiceStub(channel)
            parameters = pb.TextToImageParameters(num_inference_steps=1, width=2048, height=1024)
            large = pb.GenerateRequest(inputs="a red circle", parameters=parameters)
            return [response async for response in stub.Generate(large)]

    responses = asyncio.run(generate())
    header = wait_for(responses, "image").image
    image = image_bytes(responses)
    assert len(image) == header.size_bytes > 4 * 1024 * 1024
    assert max(len(response.event.chunk.data) for response in responses) == 1024 * 1024
    assert hashlib.sha256(image).hexdigest() == header.sha256


def test_a_reader_that_stops_is_cut_off_and_holds_up_no_other() -> None:
    """Fault 14: later callers are served, and the stopped reader gets an error with the reason."""
    with (
        run_service(
            generations='{"stall_s": 0.5}', batching='{"max_width": 8, "order": "first_come"}'
        ) as service,
        H2Client(service.target, window=0) as stalled,
        grpc.insecure_channel(service.target) as channel,
    ):
        stream = stalled.call("Generate", LONG)
        make_control(pb_grpc.TextToImageServiceStub(channel))
        stalled.open_window(stream)
        trailers = stalled.read_metadata(stream)
        assert trailers["grpc-status"] == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
        assert trailers["grpc-message"] == "nothing was read from the stream for 0.5 s"
