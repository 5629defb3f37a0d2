"""The asyncio client: what differs from the blocking one."""

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest
import safelight
from safelight import AsyncClient, Client
from safelight.events import Progress
from safelight.v1 import text_to_image_pb2 as pb

from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    progress,
    whole_generation,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def async_client(scripted: ScriptedService) -> AsyncIterator[AsyncClient]:
    """A client of the scripted service."""
    async with AsyncClient(scripted.target) as client:
        yield client


async def has_been_cancelled(scripted: ScriptedService) -> bool:
    """Wait until the service has seen the cancellation."""
    return await asyncio.to_thread(scripted.cancelled.wait, 5)


@pytest.mark.parametrize(
    "method", ["__init__", "text_to_image", "generate", "list_models", "close"]
)
def test_both_clients_have_the_same_surface(method: str) -> None:
    ours = inspect.signature(getattr(AsyncClient, method)).parameters
    assert ours == inspect.signature(getattr(Client, method)).parameters


async def test_text_to_image_returns_a_pillow_image(
    scripted: ScriptedService, async_client: AsyncClient
) -> None:
    scripted.play(whole_generation())
    image = await async_client.text_to_image("a red circle")
    assert (image.size, image.info) == ((16, 16), {"prompt": "a red circle"})


async def test_events_arrive_typed_and_in_order(
    scripted: ScriptedService, async_client: AsyncClient
) -> None:
    scripted.play(whole_generation())
    async with async_client.generate("a red circle") as generation:
        names = [type(event).__name__ async for event in generation]
    steps = ["Progress", "Preview"] * 3 + ["Progress"]
    assert names == ["ModelLoading", "Accepted", "Queued", "Queued", *steps, "Image", "Completed"]
    assert generation.generation_id == "generation-1"


async def test_models_are_described(scripted: ScriptedService, async_client: AsyncClient) -> None:
    scripted.models = [pb.Model(name="shapes", state=pb.MODEL_STATE_READY)]
    assert await async_client.list_models() == [await async_client.get_model("shapes")]


async def test_breaking_out_of_the_loop_cancels_on_the_service(
    scripted: ScriptedService, async_client: AsyncClient
) -> None:
    """Fault 15: by `break`."""
    scripted.play(accepted(), progress(1), HOLD)
    async with async_client.generate("a red circle") as generation:
        async for event in generation:
            if isinstance(event, Progress):
                break
    assert await has_been_cancelled(scripted)


async def test_cancelling_the_task_cancels_on_the_service(
    scripted: ScriptedService, async_client: AsyncClient
) -> None:
    scripted.play(accepted(), HOLD)
    async with async_client.generate("a red circle") as generation:
        await anext(generation)
        task = asyncio.ensure_future(anext(generation))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await has_been_cancelled(scripted)


async def test_cancelling_the_generation_is_an_error_and_does_not_cancel_the_task(
    scripted: ScriptedService, async_client: AsyncClient
) -> None:
    scripted.play(accepted(), HOLD)
    async with async_client.generate("a red circle") as generation:
        await anext(generation)
        asyncio.get_running_loop().call_soon(generation.cancel)
        with pytest.raises(safelight.CallCancelledError):
            await anext(generation)
    assert await has_been_cancelled(scripted)


async def test_what_would_linger_is_cancelled_by_its_id(
    scripted: ScriptedService, async_client: AsyncClient
) -> None:
    scripted.play(accepted(), HOLD)
    async with async_client.generate("a red circle") as generation:
        await anext(generation)
    assert scripted.cancelled_ids == [scripted.requests[0].generation_id]


async def test_passed_timeout_is_a_deadline_exceeded_error(
    scripted: ScriptedService, async_client: AsyncClient
) -> None:
    scripted.play(accepted(), HOLD)
    with pytest.raises(safelight.DeadlineExceededError):
        await async_client.text_to_image("a red circle", timeout=0.05)


async def test_stream_that_ends_early_is_a_protocol_error(
    scripted: ScriptedService, async_client: AsyncClient
) -> None:
    scripted.play(accepted())
    with pytest.raises(safelight.ProtocolError, match="closed the stream before"):
        await async_client.text_to_image("a red circle")


async def test_generation_is_iterated_in_its_block_only(async_client: AsyncClient) -> None:
    with pytest.raises(RuntimeError, match="enter it first"):
        await anext(async_client.generate("a red circle"))


async def test_generation_runs_once(scripted: ScriptedService, async_client: AsyncClient) -> None:
    scripted.play(whole_generation())
    generation = async_client.generate("a red circle")
    async with generation:
        await generation.images()
    with pytest.raises(RuntimeError, match="runs once"):
        async with generation:
            pass


def test_client_may_be_made_before_the_loop_runs(scripted: ScriptedService) -> None:
    scripted.play(whole_generation())
    client = AsyncClient(scripted.target)

    async def use_and_close() -> None:
        async with client:
            await client.text_to_image("a red circle")

    asyncio.run(use_and_close())


def test_second_event_loop_is_refused(scripted: ScriptedService) -> None:
    client = AsyncClient(scripted.target)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(client.list_models())
        with pytest.raises(RuntimeError, match="belongs to one event loop"):
            second.run(client.list_models())
        first.run(client.close())
