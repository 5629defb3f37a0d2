"""Process that dies in the middle of writing: `python -m ... FOLDER EVENT COUNT`.

Stores a result of two images, and kills itself just before the COUNTth EVENT that the interpreter
reports to audit hooks.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from safelight_service.cache.disk import DiskTier
from tests.service.cache.sample_results import make_result

RESULT = make_result(b"first" * 1000, b"second" * 1000)


async def _put_and_die(folder: Path, fatal: str, count: int) -> None:
    tier = DiskTier(folder, 1 << 20, read_wait_s=60)
    await tier.get("")  # opens the index
    left = count

    def watch(event: str, _: tuple[object, ...]) -> None:
        nonlocal left
        if event == fatal:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    await tier.put("key", RESULT)


if __name__ == "__main__":
    asyncio.run(_put_and_die(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
