"""The registry: every name has one meaning, whichever dialect brings it."""

from dataclasses import replace
from typing import Any

import pytest

from safelight_gateway.dialects import fal
from safelight_gateway.dialects.builtin import DIALECTS
from safelight_gateway.dialects.dialect import DialectRoute, Proxy
from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.fields.rules import WEBHOOK
from tests.gateway.dialects import toy


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"name": "fal-ai"}, "the name 'fal-ai'"),
        (
            {"routes": (DialectRoute("GET", "/api/tasks", toy.DIALECT.routes[0].handler),)},
            "the route 'GET /api/tasks'",
        ),
        ({"parameter_aliases": {"steps": "n"}}, "the parameter 'steps'"),
        ({"parameter_aliases": {"width": "height"}}, "the parameter 'width'"),
        ({"parameter_aliases": {"quality": "prompt"}}, "the field 'quality'"),
        ({"hints": ("steps",)}, "the field 'steps'"),
        ({"hints": ("webhook",)}, "the field 'webhook'"),
        ({"refusals": {"quality": WEBHOOK}}, "the field 'quality'"),
        ({"refusals": {"mask": WEBHOOK}}, "the refusal 'mask'"),
        ({"hosts": {"fal.run": "/toy"}}, "the host 'fal.run'"),
        ({"proxy": Proxy("/fal-proxy", header="x-toy-target")}, "the proxy '/fal-proxy'"),
    ],
)
def test_second_claim_to_a_name_is_refused(claims: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"two dialects claim {message}"):
        DialectRegistry((*DIALECTS, replace(toy.DIALECT, **claims)))


def test_two_dialects_may_share_an_alias_of_one_meaning() -> None:
    shared = replace(toy.DIALECT, parameter_aliases={"steps": "num_inference_steps"})
    registry = DialectRegistry((*DIALECTS, shared))
    assert registry.names_of("num_inference_steps") == ("num_inference_steps", "steps")


def test_fields_of_a_dialect_hold_for_all() -> None:
    registry = DialectRegistry((*DIALECTS, toy.DIALECT))
    assert {"mood", "quality"} <= registry.hints
    assert {"photo", "image"} <= registry.refusals.keys()
    assert "mood" not in DialectRegistry(DIALECTS).hints


def test_own_name_of_a_parameter_counts_before_its_aliases() -> None:
    assert DialectRegistry((fal.DIALECT,)).names_of("n") == ("n", "num_images")


def test_gateway_of_no_dialect_takes_bearer_tokens_alone() -> None:
    registry = DialectRegistry()
    assert registry.read_credential("bearer secret") == "secret"
    assert registry.read_credential("Key secret") is None
