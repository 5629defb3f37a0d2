"""Ongoing calls whose tokens leave the tokens file."""

import asyncio
from contextlib import suppress

import pytest

from safelight_service.auth.tokens import Caller, current_caller, digest_token
from safelight_service.core.errors import StoppingError, UnauthenticatedError
from safelight_service.grpc_server.drain import OngoingCalls


def caller(name: str, secret: str = "secret") -> Caller:
    return Caller(name=name, sha256=digest_token(f"{secret} of {name}"))


async def hang(ongoing: OngoingCalls, who: Caller | None) -> None:
    """Be a call of a caller that never ends by itself."""
    current_caller.set(who)
    with ongoing.enter():
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("who", "is_ended"),
    [
        (caller("left"), True),
        (caller("stays"), False),
        (caller("stays", "former secret"), True),
        (None, False),
    ],
    ids=["not in the file", "in the file", "another secret of the name", "no tokens"],
)
def test_calls_end_whose_token_has_left_the_file(who: Caller | None, is_ended: bool) -> None:
    async def act() -> None:
        ongoing = OngoingCalls()
        call = asyncio.create_task(hang(ongoing, who))
        await asyncio.sleep(0)
        for _ in range(2):
            ongoing.end_revoked([caller("stays"), caller("other")])
        done, _ = await asyncio.wait([call], timeout=0 if not is_ended else None)
        assert bool(done) is is_ended
        if is_ended:
            assert isinstance(call.exception(), UnauthenticatedError)
        call.cancel()
        with suppress(asyncio.CancelledError, UnauthenticatedError):
            await call

    asyncio.run(act())


def test_a_call_that_the_stop_ends_is_not_a_revoked_one() -> None:
    async def act() -> None:
        ongoing = OngoingCalls()
        call = asyncio.create_task(hang(ongoing, caller("stays")))
        await asyncio.sleep(0)
        ongoing.end_revoked([caller("stays")])
        await ongoing.finish(0)
        with pytest.raises(StoppingError):
            await call

    asyncio.run(act())
