"""Kept generations: each tenant has its share of the memory for them."""

import pytest

from safelight_service.core.events import Completed, Image, Preview, Timings
from safelight_service.core.request import GenerationRequest
from safelight_service.core.tenant import Tenant
from safelight_service.generations.index import GenerationIndex
from safelight_service.generations.kept import Kept
from safelight_service.generations.state import Generation

COMPLETED = Completed(Timings(0, 0, 0, 0, 0, 0, 0), 4, {1: 4})
SOME = bytes(100_000)
FLOOD, WEAK, STRONG = Tenant("flood"), Tenant("weak"), Tenant("strong", 3.0)


def ended(tenant: Tenant, name: str, data: bytes | None = None) -> Generation:
    """Return a completed generation with an image of its own of 100 kB, or of these bytes."""
    generation = Generation(tenant.name, name, GenerationRequest("x", tenant=tenant))
    content = bytes(bytearray(SOME)) if data is None else data
    generation.publish(Image(0, "image/png", 64, 64, 7, False, "", content))
    generation.end(COMPLETED)
    return generation


def keep(index: GenerationIndex, *generations: Generation) -> None:
    for generation in generations:
        index.add(generation)
        index.keep(generation)


def test_no_tenant_pushes_out_what_another_keeps() -> None:
    index = GenerationIndex(1_100_000)
    keep(index, ended(WEAK, "first"), *(ended(FLOOD, str(number)) for number in range(60)))
    assert index.get("weak", "first")
    kept = [generation.id for generation in index.list_of("flood")]
    assert kept == [str(number) for number in range(51, 60)], "the newest, in all that is left"


def test_a_tenant_that_comes_late_gets_its_share_by_its_weight() -> None:
    index = GenerationIndex(870_000)
    for tenant in (FLOOD, STRONG):
        keep(index, *(ended(tenant, str(number)) for number in range(20)))
    assert [len(index.list_of(name)) for name in ("flood", "strong")] == [2, 6]


def test_equal_bytes_of_a_tenant_count_once() -> None:
    index = GenerationIndex(600_000)
    keep(index, *(ended(WEAK, str(number), SOME) for number in range(60)))
    assert len(index.list_of("weak")) == 60


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_bytes_count_until_the_last_generation_with_them_is_gone(order: tuple[int, ...]) -> None:
    kept = Kept(1)
    generations = [ended(WEAK, "a", SOME), ended(WEAK, "b", SOME), ended(FLOOD, "c", SOME)]
    for generation in generations:
        kept.add(generation)
    assert kept.size_bytes > 2 * len(SOME), "of each tenant once"
    for number in order:
        kept.discard(generations[number])
        kept.discard(generations[number])
    assert kept.size_bytes == 0
    assert kept.find_excessive() is None


def test_a_preview_that_a_failed_generation_leaves_counts() -> None:
    kept = Kept(1 << 20)
    generation = Generation("weak", "a", GenerationRequest("x", tenant=WEAK))
    generation.publish(Preview(0, 1, "image/jpeg", 64, 64, SOME))
    kept.add(generation)
    assert kept.size_bytes > len(SOME)
