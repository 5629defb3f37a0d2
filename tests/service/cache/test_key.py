import subprocess
import sys
from dataclasses import replace

import pytest

from safelight_service.cache import cache_key
from safelight_service.core.request import (
    ResolvedOutput,
    ResolvedParameters,
    ResolvedPreview,
    ResolvedRequest,
)

PARAMETERS = ResolvedParameters(4.0, None, 20, 64, 96, "euler", 7)
REQUEST = ResolvedRequest("a red circle", PARAMETERS, 1, ResolvedOutput("image/png", None), None)


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, inputs="a red  circle"),
        replace(REQUEST, image_count=2),
        replace(REQUEST, output=ResolvedOutput("image/webp", 95)),
        replace(REQUEST, output=ResolvedOutput("image/webp", 94)),
        replace(REQUEST, parameters=replace(PARAMETERS, guidance_scale=4.5)),
        replace(REQUEST, parameters=replace(PARAMETERS, negative_prompt="blue")),
        replace(REQUEST, parameters=replace(PARAMETERS, num_inference_steps=21)),
        replace(REQUEST, parameters=replace(PARAMETERS, width=96)),
        replace(REQUEST, parameters=replace(PARAMETERS, height=64)),
        replace(REQUEST, parameters=replace(PARAMETERS, scheduler="ddim")),
        replace(REQUEST, parameters=replace(PARAMETERS, seed=8)),
    ],
)
def test_whatever_changes_an_image_changes_the_key(other: ResolvedRequest) -> None:
    assert cache_key("model", other) != cache_key("model", REQUEST)


def test_another_model_has_other_keys() -> None:
    assert cache_key("model", REQUEST) != cache_key("another", REQUEST)


def test_other_callers_have_other_keys() -> None:
    scopes = "", "token:one", "token:two", "group:one"
    assert len({cache_key("model", REQUEST, scope) for scope in scopes}) == len(scopes)


def test_images_that_are_marked_in_another_way_have_other_keys() -> None:
    assert cache_key("model", REQUEST, marking="signed") != cache_key("model", REQUEST)


def test_previews_do_not_change_the_key() -> None:
    watched = replace(REQUEST, preview=ResolvedPreview(5, "image/jpeg", 256))
    assert cache_key("model", watched) == cache_key("model", REQUEST)


def test_other_versions_of_the_libraries_have_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_key("model", REQUEST)
    monkeypatch.setattr("safelight_service.cache.key._versions", lambda: {"torch": "1.0"})
    assert cache_key("model", REQUEST) != before


def test_the_key_is_the_same_in_another_process() -> None:
    program = (
        "from tests.service.cache.test_key import REQUEST, cache_key\n"
        "print(cache_key('model', REQUEST), end='')"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert run.stdout.decode() == cache_key("model", REQUEST)


def test_keys_are_sha256_in_hexadecimal() -> None:
    assert len(bytes.fromhex(cache_key("model", REQUEST))) == 32
