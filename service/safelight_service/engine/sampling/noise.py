"""Noise: normal noise of one image, drawn on the host, partly ahead of its use."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch


class _Draw(NamedTuple):
    """A tensor drawn ahead, and the generator's state before the draw."""

    shape: torch.Size
    dtype: torch.dtype
    state_before: torch.Tensor
    noise: torch.Tensor


class Noise:
    """Draws normal noise in the order of the calls; the seed determines all values.

    Schedulers that add noise draw the same shapes at every step. So `draw_ahead` repeats the draws
    of the last step while the device is busy. A draw of another shape rewinds the generator first,
    so the values do not depend on the draws ahead.
    """

    def __init__(
        self, generator: torch.Generator, pin: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self.generator = generator
        self._pin = pin
        self._ahead: deque[_Draw] = deque()
        self._drawn: list[tuple[torch.Size, torch.dtype]] = []
        self._pattern: list[tuple[torch.Size, torch.dtype]] = []

    def draw(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """Return normal noise of a shape, in memory from `pin`."""
        self._drawn.append((shape, dtype))
        if self._ahead and self._ahead[0][:2] == (shape, dtype):
            return self._ahead.popleft().noise
        self.rewind()
        return self._make(shape, dtype)

    def rewind(self) -> None:
        """Undo the draws ahead."""
        if self._ahead:
            self.generator.set_state(self._ahead[0].state_before)
            self._ahead.clear()

    def end_step(self) -> None:
        """Take the draws since the last step as the pattern for the next one."""
        self._pattern, self._drawn = self._drawn, []

    def draw_ahead(self) -> None:
        """Repeat the draws of the last step, for the next one."""
        if not self._ahead:
            for shape, dtype in self._pattern:
                state = self.generator.get_state()
                self._ahead.append(_Draw(shape, dtype, state, self._make(shape, dtype)))

    def _make(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        return self._pin(torch.randn(shape, generator=self.generator, dtype=dtype))
