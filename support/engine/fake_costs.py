"""Fake costs: a tiny model whose work takes given seconds, by a clock of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch.utils.hooks import RemovableHandle

from safelight_service.engine.models.loaded_model import LoadedModel
from support.thread_clock import set_clock


class Clock:
    """Clock that only the given modules advance."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._now = 0.0
        set_clock(patch, lambda: self._now)

    def takes(self, module: Any, seconds: Callable[[dict[str, Any]], float]) -> RemovableHandle:
        """Make each forward of a module take some seconds, depending on its arguments."""

        def move_on(_: Any, __: Any, arguments: dict[str, Any]) -> None:
            self._now += seconds(arguments)

        handle: RemovableHandle = module.register_forward_pre_hook(move_on, with_kwargs=True)
        return handle


@contextmanager
def timed(
    model: LoadedModel,
    patch: pytest.MonkeyPatch,
    *,
    text_s: float = 0.0,
    check_s: float = 0.0,
    forward_s: float | Callable[[], float] = 1.0,
    row_s: float = 0.0,
    decode_s: float = 0.0,
) -> Iterator[None]:
    """Make a model's work take some seconds, by a clock that nothing else advances.

    A forward takes `forward_s`, which may change, and `row_s` for each row. A safety check takes
    `check_s`.
    """
    clock = Clock(patch)
    pipeline = model.adapter.pipeline
    encoder = getattr(pipeline, "text_encoder_2", pipeline.text_encoder)
    checker = getattr(pipeline, "safety_checker", None)
    find_s = forward_s if callable(forward_s) else lambda: forward_s

    def count_rows(call: dict[str, Any]) -> int:
        return len(call["guidance" if "guidance" in call else "encoder_hidden_states"])

    hooks = [
        clock.takes(encoder, lambda _: text_s),
        clock.takes(model.denoiser, lambda call: find_s() + row_s * count_rows(call)),
        clock.takes(pipeline.vae.decoder, lambda _: decode_s),
    ]
    if checker is not None:
        hooks.append(clock.takes(checker.vision_model, lambda _: check_s))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
