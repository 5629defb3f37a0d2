"""Process that fills a folder together with others: `python -m ... FOLDER NAME`."""

import asyncio
import sys
from pathlib import Path

from safelight_service.cache.disk import DiskTier
from safelight_service.cache.results import Result
from tests.service.cache.sample_results import make_result

ROOM = 4000
COUNT = 30


def result_of(key: str) -> Result:
    """Return a result with an image that all results share, and one of its own."""
    return make_result(b"shared" * 10, key.encode() * 100)


async def _fill(folder: Path, name: str) -> None:
    tier = DiskTier(folder, ROOM, lock_wait_s=60, read_wait_s=60)  # however slow the disk is
    for number in range(COUNT):
        key = f"{name}{number}"
        await tier.put(key, result_of(key))
        for earlier in range(number):
            key = f"{name}{earlier}"
            assert await tier.get(key) in (None, result_of(key))
    await tier.close()


if __name__ == "__main__":
    asyncio.run(_fill(Path(sys.argv[1]), sys.argv[2]))
