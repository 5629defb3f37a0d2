"""Callers: a process of their own, without the threads of Ray."""

import asyncio
import multiprocessing
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

LIMIT_S = 180.0


def call_apart(work: Callable[..., Coroutine[Any, Any, Result]], *arguments: object) -> Result:
    """Run a coroutine function in a new process, and return its result.

    Raises:
        TimeoutError: it has not ended in time.
    """
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawning) as processes:
        return processes.submit(_run, work, *arguments).result()


def _run(work: Callable[..., Coroutine[Any, Any, Result]], *arguments: object) -> Result:
    async def main() -> Result:
        async with asyncio.timeout(LIMIT_S):
            return await work(*arguments)

    return asyncio.run(main())
