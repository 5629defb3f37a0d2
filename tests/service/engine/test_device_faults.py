"""Device faults: a permanent one ends everything at once, a single one fails one image."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from safelight_service.core.errors import DeviceLostError, InternalError
from safelight_service.core.events import Completed
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.engine import Engine
from safelight_service.settings import BatchingSettings, Settings
from support.engine.job_runs import SMALL, collect
from support.engine.tiny_models import TinyModels

REQUEST = GenerationRequest("a red circle", Parameters(**SMALL))
CUDA_ERROR = "CUDA error: an illegal memory access was encountered"


def with_engine(
    tiny_models: TinyModels, act: Callable[[Engine], Awaitable[None]], **settings: Any
) -> None:
    """Run a test on an engine that makes one image at a time; always close it."""

    async def run() -> None:
        models = (tiny_models.settings("sd15"),)
        batching = BatchingSettings(max_width=1)
        engine = Engine(Settings(models=models, torch_threads=1, batching=batching, **settings))
        await engine.start()
        try:
            await act(engine)
        finally:
            await engine.close()

    asyncio.run(run())


@contextmanager
def on_forward(engine: Engine, fault: Callable[..., None]) -> Iterator[None]:
    """Call `fault` in every forward of the denoiser."""
    model = engine.find_loaded()
    assert model is not None
    hook = model.denoiser.register_forward_pre_hook(fault)
    try:
        yield
    finally:
        hook.remove()


async def expect_lost(engine: Engine) -> None:
    """Expect the same error for running, waiting and new requests, and from the engine."""
    running_and_waiting = [asyncio.ensure_future(collect(engine, REQUEST)) for _ in range(2)]
    await engine.wait_until_lost()
    for generation in running_and_waiting:
        with pytest.raises(DeviceLostError):
            await generation
    with pytest.raises(DeviceLostError):
        await collect(engine, REQUEST)
    assert engine.is_lost


def test_an_error_after_which_the_device_refuses_all_work_ends_everything(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 32: a sticky CUDA error."""
    monkeypatch.setattr("safelight_service.engine.hardware.is_answering", lambda device: False)

    def fail(*_: Any) -> None:
        raise torch.AcceleratorError(CUDA_ERROR)

    async def act(engine: Engine) -> None:
        with on_forward(engine, fail):
            await expect_lost(engine)

    with_engine(tiny_models, act)


def test_the_same_error_on_a_device_that_still_answers_fails_one_generation(
    tiny_models: TinyModels,
) -> None:
    """Fault 32: an error that is not sticky."""

    def fail(*_: Any) -> None:
        raise RuntimeError(CUDA_ERROR)

    async def act(engine: Engine) -> None:
        with on_forward(engine, fail), pytest.raises(InternalError):
            await collect(engine, REQUEST)
        assert isinstance((await collect(engine, REQUEST))[-1], Completed)
        assert not engine.is_lost

    with_engine(tiny_models, act)


def test_a_call_that_does_not_return_ends_everything(tiny_models: TinyModels) -> None:
    """Fault 34: the device thread hangs; closing the engine does not wait for it."""
    is_over = threading.Event()

    def hang(*_: Any) -> None:
        is_over.wait()

    async def act(engine: Engine) -> None:
        with on_forward(engine, hang):
            await expect_lost(engine)

    try:
        with_engine(tiny_models, act, step_timeout_s=1)
    finally:
        is_over.set()


def test_a_dead_device_thread_leaves_no_caller_waiting(
    tiny_models: TinyModels, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fault 34: an unexpected error ends the device thread."""

    def fail(*_: Any) -> None:
        raise SystemExit

    async def act(engine: Engine) -> None:
        with on_forward(engine, fail):
            await expect_lost(engine)

    with_engine(tiny_models, act)
    logged = "".join(capfd.readouterr())
    assert "SystemExit" in logged
    assert "device_lost" in logged
