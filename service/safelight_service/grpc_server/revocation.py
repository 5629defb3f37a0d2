"""Revocation: ends the calls and the generations of tokens that have left the tokens file."""

import asyncio
from contextlib import suppress

from safelight_service.auth.tokens import CHECK_EVERY_S, Tokens
from safelight_service.core.errors import report_fault
from safelight_service.generations.generations import Generations
from safelight_service.grpc_server.drain import OngoingCalls


class Revocation:
    """Checks the calls in progress and the generations against the file, once a second.

    A call belongs to its token, so it ends when the token is replaced. A generation belongs to the
    token's name, so the next token of that name finds it. It ends when the name leaves the file.
    """

    def __init__(self, tokens: Tokens, ongoing: OngoingCalls, generations: Generations) -> None:
        self._tokens = tokens
        self._ongoing = ongoing
        self._generations = generations
        self._task: asyncio.Task[None] | None = None

    def apply(self) -> None:
        """End all calls and generations that no entry of the file permits any more."""
        callers = self._tokens.callers
        self._ongoing.end_revoked(callers)
        self._generations.end_except({caller.name for caller in callers})

    def start(self) -> None:
        """Apply the file once a second from now on."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop, if started."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                self.apply()
            except Exception as fault:
                report_fault(fault)
