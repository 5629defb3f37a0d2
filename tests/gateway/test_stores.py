"""What is kept between requests stays within its bounds, and ids mean what the operator says."""

from dataclasses import replace

import pytest
from safelight import AsyncClient, Image, Model, ModelState

from safelight_gateway.errors import GatewayError
from safelight_gateway.files import FileStore
from safelight_gateway.gateway import Gateway
from safelight_gateway.generation import ImageRequest
from safelight_gateway.models import ModelDirectory
from safelight_gateway.settings import FileSettings, JobSettings, Settings
from tests.gateway.failing_service import ENDLESS, READY, FailingService

MODELS = [
    Model(name=name, revision="", is_default=name == "a", state=ModelState.READY, capabilities=None)
    for name in ("a", "Big/B")
]


def image(data: bytes) -> Image:
    return Image(
        image_index=0,
        mime_type="image/png",
        width=8,
        height=8,
        seed=1,
        is_flagged=False,
        sha256="",
        data=data,
    )


def choose(*ids: str, **aliases: str) -> str | None:
    directory = ModelDirectory(AsyncClient("localhost:1"), {"*": "", **aliases})
    model = directory.choose(ids, MODELS)
    return model.name if model is not None else None


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ((), "a"),
        (("",), "a"),
        (("a",), "a"),
        (("safelight/A",), "a"),
        (("big/b",), "Big/B"),
        (("nobody/x", "big/b"), "Big/B"),
        (("nobody/x",), None),
        (("HUB/Y",), "Big/B"),
    ],
)
def test_model_is_found_by_name_and_by_alias_whatever_the_case(
    ids: tuple[str, ...], name: str | None
) -> None:
    assert choose(*ids, **{"hub/y": "big/b"}) == name


def test_any_other_model_is_what_the_star_says() -> None:
    assert choose("nobody/x", **{"*": "Big/B"}) == "Big/B"
    assert choose("a", **{"*": "Big/B"}) == "a"


def test_alias_comes_before_the_served_name() -> None:
    assert choose("a", a="Big/B") == "Big/B"


def test_oldest_file_goes_when_there_is_no_room() -> None:
    store = FileStore(FileSettings(keep_mib=1))
    names = [store.put(image(bytes(400_000))) for _ in range(3)]
    assert [store.get(name) is not None for name in names] == [False, True, True]


def test_file_goes_when_its_time_is_over() -> None:
    store = FileStore(FileSettings(keep_s=1e-9))
    assert store.get(store.put(image(b"x"))) is None


def test_names_of_files_cannot_be_guessed() -> None:
    store = FileStore(FileSettings())
    names = {store.put(image(b"x")) for _ in range(100)}
    assert len(names) == 100
    assert all(len(name.removesuffix(".png")) >= 32 for name in names)


@pytest.mark.anyio
async def test_jobs_beyond_the_bound_are_refused_and_ended_ones_make_room(
    failing_service: FailingService,
) -> None:
    settings = Settings(target=failing_service.target, jobs=JobSettings(max_count=2))
    async with Gateway(settings) as gateway:
        first = gateway.jobs.start(ImageRequest(prompt="x", model=(READY,)))
        assert await first.wait_until_ended()
        endless = [gateway.jobs.start(ImageRequest(prompt="x", model=(ENDLESS,))) for _ in range(2)]
        with pytest.raises(GatewayError) as raised:
            gateway.jobs.find(first.id, None)
        assert raised.value.status == 404
        with pytest.raises(GatewayError) as raised:
            gateway.jobs.start(ImageRequest(prompt="x"))
        assert raised.value.status == 429
    assert all(job.has_ended for job in endless)


@pytest.mark.anyio
async def test_results_beyond_the_memory_are_forgotten_the_oldest_first(
    failing_service: FailingService,
) -> None:
    async with Gateway(Settings(target=failing_service.target)) as gateway:
        jobs = []
        for _ in range(3):
            jobs.append(gateway.jobs.start(ImageRequest(prompt="x", model=(READY,))))
            assert await jobs[-1].wait_until_ended()
            result = jobs[-1].result
            assert result is not None
            jobs[-1].result = replace(result, images=(image(bytes(100 * 2**20)),))
        with pytest.raises(GatewayError):
            gateway.jobs.find(jobs[0].id, None)
        assert gateway.jobs.find(jobs[1].id, None) is jobs[1]
