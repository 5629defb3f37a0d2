"""The retries: broken streams are resumed, refusals are not, and no call outlives its time-out."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import safelight
from google.rpc.status_pb2 import Status
from safelight import AsyncClient, Client, Event
from safelight._client.retries import CallArguments, Retries
from safelight.v1 import text_to_image_pb2 as pb

from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    failure,
    image,
    preview,
    progress,
    queued,
    status,
    whole_generation,
)

BREAKS = (
    grpc.StatusCode.UNAVAILABLE,  # no proxy
    grpc.StatusCode.INTERNAL,  # Envoy
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a proxy's own limit
)
REFUSALS = tuple({*grpc.StatusCode} - {*BREAKS, grpc.StatusCode.OK})

Generate = Callable[..., list[Event]]


def generate(target: str, **options: Any) -> list[Event]:
    with Client(target) as client, client.generate("a red circle", **options) as generation:
        return [*generation]


def generate_in_asyncio(target: str, **options: Any) -> list[Event]:
    async def run() -> list[Event]:
        async with (
            AsyncClient(target) as client,
            client.generate("a red circle", **options) as generation,
        ):
            return [event async for event in generation]

    return asyncio.run(run())


both_clients = pytest.mark.parametrize(
    "generate", [generate, generate_in_asyncio], ids=["blocking", "asyncio"]
)


def broken(code: grpc.StatusCode = grpc.StatusCode.INTERNAL) -> Status:
    """Return the status of a broken stream: the service's own ErrorInfo is missing."""
    return status(code, "Received RST_STREAM with error code 2")


def error_of(code: grpc.StatusCode, reason: str | None = None) -> safelight.ServiceError:
    return safelight.ServiceError("no", code=code, reason=reason)


@both_clients
def test_a_stream_broken_in_any_way_is_resumed_and_each_event_comes_once(
    generate: Generate, scripted: ScriptedService
) -> None:
    streams = [
        [queued(1), accepted(2), progress(1), preview(1)],
        [queued(1), accepted(2), progress(2)],
        [accepted(2), progress(2), preview(2), *image(0)],
        [accepted(2), progress(3), preview(2), *[*image(0)][:2]],
        [accepted(2), progress(3), preview(3), *image(0)],
        [accepted(2), progress(4), *image(0), *[*image(1)][:2]],
    ]
    ends = [broken(code) for code in BREAKS]
    last = [accepted(2), progress(4), *image(0), *image(1), [*whole_generation()][-1]]
    scripted.play_in_turn(*([*s, end] for s, end in zip(streams, ends, strict=True)), last)
    events = generate(scripted.target, image_count=2, preview_every=1, timeout=60)
    assert [_name(event) for event in events] == [
        *("Queued", "Accepted", "Progress 1", "Preview 1", "Progress 2", "Preview 2", "Image 0"),
        *("Progress 3", "Preview 3", "Progress 4", "Image 1", "Completed"),
    ]
    assert len(scripted.requests) == 7
    assert all(request == scripted.requests[0] for request in scripted.requests)
    assert scripted.requests[0].generation_id


def _name(event: Event) -> str:
    number = getattr(event, "step", getattr(event, "image_index", ""))
    is_numbered = not isinstance(event, safelight.Completed)
    return f"{type(event).__name__} {number if is_numbered else ''}".strip()


@both_clients
@pytest.mark.parametrize(
    "end",
    [
        failure(grpc.StatusCode.INTERNAL, "INTERNAL"),
        failure(grpc.StatusCode.CANCELLED, "CANCELLED"),
        failure(grpc.StatusCode.UNAVAILABLE, "STOPPING"),
        broken(grpc.StatusCode.UNAUTHENTICATED),
    ],
    ids=["internal", "cancelled", "stopping", "a proxy's refusal"],
)
def test_a_failure_that_is_no_break_is_raised(
    end: Status, generate: Generate, scripted: ScriptedService
) -> None:
    scripted.play(accepted(), progress(1), end)
    with pytest.raises(safelight.ServiceError):
        generate(scripted.target)
    assert len(scripted.requests) == 1


@both_clients
def test_a_wait_that_would_pass_the_deadline_is_not_begun(
    generate: Generate, scripted: ScriptedService
) -> None:
    scripted.pushback_ms = 60_000
    scripted.play(failure(grpc.StatusCode.UNAVAILABLE, "STOPPING"))
    began_at = time.monotonic()
    with pytest.raises(safelight.ServiceUnavailableError, match="no"):
        generate(scripted.target, timeout=50)
    assert time.monotonic() - began_at < 10


@both_clients
def test_a_call_ends_by_its_time_out_although_the_service_dies_while_it_waits(
    generate: Generate, scripted: ScriptedService
) -> None:
    """gRPC's own retry never ends here."""
    scripted.pushback_ms = 300
    scripted.play(failure(grpc.StatusCode.UNAVAILABLE, "STOPPING"))
    scripted.on_request = lambda _: threading.Thread(target=scripted.stop).start()
    failures: list[BaseException] = []

    def call() -> None:
        try:
            generate(scripted.target, timeout=1)
        except safelight.ServiceError as error:
            failures.append(error)

    calling = threading.Thread(target=call, daemon=True)
    calling.start()
    calling.join(timeout=2)
    assert [type(error) for error in failures] == [safelight.ServiceUnavailableError]


@both_clients
def test_a_stream_that_breaks_for_ever_ends_by_the_time_out(
    generate: Generate, scripted: ScriptedService
) -> None:
    scripted.play(accepted(), broken())
    began_at = time.monotonic()
    with pytest.raises(safelight.ServiceError):
        generate(scripted.target, timeout=0.3)
    assert time.monotonic() - began_at < 1.3
    assert len(scripted.requests) > 1


def test_a_closed_client_resumes_nothing(scripted: ScriptedService) -> None:
    scripted.pushback_ms = 60_000
    scripted.play(failure(grpc.StatusCode.UNAVAILABLE, "STOPPING"))
    client = Client(scripted.target)
    scripted.on_request = lambda _: threading.Thread(target=client.close).start()
    with client.generate("a red circle") as generation:
        threading.Timer(0.2, generation.cancel).start()
        with pytest.raises(safelight.ServiceError):
            next(generation)
    assert len(scripted.requests) == 1


@pytest.mark.anyio
async def test_cancelling_between_two_attempts_ends_the_wait(scripted: ScriptedService) -> None:
    scripted.pushback_ms = 60_000
    scripted.play(failure(grpc.StatusCode.UNAVAILABLE, "STOPPING"))
    loop = asyncio.get_running_loop()
    async with AsyncClient(scripted.target) as client, client.generate("a") as generation:
        scripted.on_request = lambda _: loop.call_soon_threadsafe(
            loop.call_later, 0.1, generation.cancel
        )
        with pytest.raises(safelight.CallCancelledError):
            await anext(generation)
    assert len(scripted.requests) == 1


def test_a_request_of_the_contract_is_sent_unchanged_and_its_messages_kept(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(accepted(), image(), [*whole_generation()][-1])
    request = pb.GenerateRequest(inputs="a red circle")
    with client.stream(request) as generation:
        messages = [generation.message for _ in generation]
    assert scripted.requests == [request]
    assert [message and message.WhichOneof("kind") for message in messages] == [
        *("accepted", "image", "completed")
    ]


def test_leaving_the_stream_of_a_request_does_not_cancel_by_its_id(
    scripted: ScriptedService, client: Client
) -> None:
    request = pb.GenerateRequest(inputs="a red circle", generation_id="mine")
    request.linger.FromSeconds(5)
    scripted.play(accepted(), HOLD)
    with client.stream(request) as generation:
        next(generation)
    assert scripted.cancelled.wait(5)
    assert not scripted.cancelled_ids


def begun(linger_s: float = 10.0, timeout: float | None = None) -> Retries:
    """Return the retries of a call whose stream has brought an event."""
    retries = Retries(CallArguments(timeout=timeout, metadata=()), linger_s)
    retries.begin_attempt()
    retries.note_message(is_new=True)
    return retries


@pytest.mark.parametrize("code", BREAKS)
def test_calls_are_made_four_times_before_the_first_message(code: grpc.StatusCode) -> None:
    retries = Retries(CallArguments(timeout=None, metadata=()))
    for expected_s in (0.1, 0.2, 0.4):
        retries.begin_attempt()
        assert retries.delay_after(error_of(code)) == pytest.approx(expected_s, rel=0.21)
    retries.begin_attempt()
    with pytest.raises(safelight.ServiceError):
        retries.delay_after(error_of(code))


@pytest.mark.parametrize("code", sorted(REFUSALS, key=str))
def test_refusals_are_final(code: grpc.StatusCode) -> None:
    for retries in (Retries(CallArguments(timeout=None, metadata=())), begun()):
        with pytest.raises(safelight.ServiceError):
            retries.delay_after(error_of(code))


def test_a_service_that_is_stopping_is_tried_again_while_resuming() -> None:
    retries = begun()
    retries.delay_after(error_of(grpc.StatusCode.INTERNAL))
    retries.begin_attempt()
    assert retries.delay_after(error_of(grpc.StatusCode.UNAVAILABLE, "STOPPING"))


def test_resuming_waits_longer_each_time_and_gives_up_after_the_linger() -> None:
    retries = begun(linger_s=3.0)
    error = error_of(grpc.StatusCode.UNAVAILABLE)
    delays = []
    for _ in range(5):
        delays.append(retries.delay_after(error))
        retries.begin_attempt()
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8]
    for retries in (begun(linger_s=0.0), begun(linger_s=0.04), begun(timeout=0.04)):
        with pytest.raises(safelight.ServiceError):
            retries.delay_after(error)


def test_streams_without_new_events_are_resumed_ten_times() -> None:
    retries = begun()
    error = error_of(grpc.StatusCode.ABORTED)
    for _ in range(10):
        retries.delay_after(error)
        retries.begin_attempt()
        retries.note_message(is_new=False)
    with pytest.raises(safelight.ServiceError):
        retries.delay_after(error)
