"""Settings: a wrong one stops the gateway at start, by name."""

import re

import pytest

from safelight_gateway.settings import load_settings
from safelight_settings import ConfigurationError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAFELIGHT_GATEWAY_CONFIG", raising=False)


def test_without_any_setting_it_serves_loopback_on_loopback() -> None:
    settings = load_settings()
    assert (settings.listen, settings.target) == ("127.0.0.1:8080", "127.0.0.1:50051")
    assert (settings.aliases, settings.root_path, settings.public_url) == ({}, "", "")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("listen", "127.0.0.1", "must be HOST:PORT"),
        ("target", "http://127.0.0.1:50051", "must be a gRPC target"),
        ("root_path", "images", "must be a path such as /images"),
        ("public_url", "example.org", "must be an http:// or https:// URL"),
        ("target_tls", {"certificate": "a"}, "must be given together"),
        ("files", {"keep": 1}, "keep is not a setting; did you mean files.keep_s?"),
        ("listens", "127.0.0.1:1", " is not a setting; did you mean listen?"),
    ],
)
def test_what_is_not_allowed_is_named(name: str, value: object, words: str) -> None:
    option = name.replace("_", "-")
    with pytest.raises(ConfigurationError, match=rf"^--{option}.*{re.escape(words)}"):
        load_settings({name: value})


def test_aliases_are_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_GATEWAY_ALIASES", '{"owner/model": "shapes"}')
    assert load_settings().aliases == {"owner/model": "shapes"}


def test_variables_of_the_service_are_none_of_its_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAFELIGHT_QUEUE_SIZE", "3")
    load_settings()


def test_token_is_not_shown() -> None:
    assert "secret" not in repr(load_settings({"token": "secret"}))
