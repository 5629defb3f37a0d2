"""Unsent answers: slow readers hold a bounded memory."""

import asyncio

import pytest
from starlette.types import Message

from safelight_gateway.edge.unsent import UnsentAnswers

SIZE = 300 * 1024


@pytest.mark.anyio
async def test_the_oldest_answer_of_the_address_with_the_most_is_cut_off() -> None:
    answers = UnsentAnswers(4 * SIZE)
    cut_off: list[str] = []
    reads = asyncio.Event()

    async def never_read(message: Message) -> None:
        await reads.wait()

    def answer(holder: str, name: str) -> "asyncio.Task[None]":
        message = {"type": "http.response.body", "body": bytes(SIZE)}
        return asyncio.create_task(
            answers.send(message, never_read, holder, lambda: cut_off.append(name))
        )

    tasks = [answer("a", "a1"), *(answer("b", f"b{number}") for number in range(1, 6))]
    await asyncio.sleep(0)  # all tasks run until they wait for their clients
    assert cut_off == ["b1", "b2"]
    reads.set()
    await asyncio.gather(*tasks)
    assert answers.size_bytes == 0


@pytest.mark.anyio
async def test_an_answer_arrives_whole_in_slices() -> None:
    body = bytes(range(256)) * 1200
    sent: list[Message] = []

    async def read(message: Message) -> None:
        sent.append(message)

    message = {"type": "http.response.body", "body": body, "more_body": True}
    await UnsentAnswers(1).send(message, read, "a", lambda: None)
    assert b"".join(part["body"] for part in sent) == body
    assert max(len(part["body"]) for part in sent) <= 64 * 1024
    assert all(part["more_body"] for part in sent)
