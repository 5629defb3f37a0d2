"""Unsent answers: large answers that clients have not read, within a bound of memory."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Message, Send

_SLICE_BYTES = 64 * 1024
"""The server buffers at most a slice for a client that does not read."""


@dataclass(eq=False, slots=True)
class _Answer:
    holder: str
    size_bytes: int
    abort: Callable[[], None]


class UnsentAnswers:
    """The large answers that are being sent.

    Beyond the capacity, the oldest answer of the address with the most unsent bytes is cut off.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._answers: dict[_Answer, None] = {}
        self._sizes: Counter[str] = Counter()

    @property
    def size_bytes(self) -> int:
        """Size of all answers that are being sent."""
        return self._sizes.total()

    async def send(
        self, message: Message, send: Send, holder: str, abort: Callable[[], None]
    ) -> None:
        """Send a part of a response in slices, each once the client has read those before.

        Args:
            message: An ASGI message with a body.
            send: Sends a message.
            holder: Address of the client.
            abort: Closes the connection at once.
        """
        body = message.get("body", b"")
        if len(body) <= _SLICE_BYTES:
            await send(message)
            return
        has_more = message.get("more_body", False)
        with self._hold(_Answer(holder, len(body), abort)):
            view = memoryview(body)
            for start in range(0, len(body), _SLICE_BYTES):
                end = start + _SLICE_BYTES
                is_last = end >= len(body)
                part = {"body": bytes(view[start:end]), "more_body": has_more or not is_last}
                await send({**message, **part})

    @contextmanager
    def _hold(self, answer: _Answer) -> Iterator[None]:
        self._answers[answer] = None
        self._sizes[answer.holder] += answer.size_bytes
        while self.size_bytes > self._capacity_bytes and len(self._answers) > 1:
            self._cut_off()
        try:
            yield
        finally:
            self._discard(answer)

    def _cut_off(self) -> None:
        largest = max(self._sizes, key=self._sizes.__getitem__)
        oldest = next(each for each in self._answers if each.holder == largest)
        self._discard(oldest)
        oldest.abort()

    def _discard(self, answer: _Answer) -> None:
        if answer in self._answers:
            del self._answers[answer]
            self._sizes[answer.holder] -= answer.size_bytes
            if not self._sizes[answer.holder]:
                del self._sizes[answer.holder]
