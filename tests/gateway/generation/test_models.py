"""Models: the served model that a caller's id refers to."""

import pytest
from safelight import Model, ModelState

from safelight_gateway.calls.callers import Callers
from safelight_gateway.calls.channel_pool import ChannelPool
from safelight_gateway.generation.models import ModelDirectory
from safelight_gateway.settings import Settings

MODELS = [
    Model(name=name, revision="", is_default=name == "a", state=ModelState.READY, capabilities=None)
    for name in ("a", "Big/B")
]


def choose(*ids: str, **aliases: str) -> str | None:
    callers = Callers(ChannelPool(Settings(target="localhost:1")))
    directory = ModelDirectory(callers, {"*": "", **aliases})
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
def test_model_is_found_by_name_and_by_alias_in_any_case(
    ids: tuple[str, ...], name: str | None
) -> None:
    assert choose(*ids, **{"hub/y": "big/b"}) == name


def test_any_other_model_is_what_the_star_says() -> None:
    assert choose("nobody/x", **{"*": "Big/B"}) == "Big/B"
    assert choose("a", **{"*": "Big/B"}) == "a"


def test_alias_comes_before_the_served_name() -> None:
    assert choose("a", a="Big/B") == "Big/B"
