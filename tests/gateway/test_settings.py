"""A setting that is wrong stops the gateway at start, with its name."""

import re
from pathlib import Path

import pytest

from safelight_gateway.settings import Settings, load_settings

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "gateway.md"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAFELIGHT_GATEWAY_CONFIG", raising=False)


def test_without_any_setting_it_serves_loopback_on_loopback() -> None:
    settings = load_settings()
    assert (settings.listen, settings.target) == ("127.0.0.1:8080", "127.0.0.1:50051")
    assert (settings.aliases, settings.root_path, settings.public_url) == ({}, "", "")


def test_the_command_line_wins_over_the_environment_and_it_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('listen = "127.0.0.1:1"\ntarget = "a:1"\n[aliases]\n"*" = "shapes"\n')
    monkeypatch.setenv("SAFELIGHT_GATEWAY_TARGET", "b:2")
    monkeypatch.setenv("SAFELIGHT_GATEWAY_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("SAFELIGHT_GATEWAY_CONFIG", str(config))
    settings = load_settings({"listen": "127.0.0.1:3"})
    assert (settings.listen, settings.target) == ("127.0.0.1:3", "b:2")
    assert settings.aliases == {"*": "shapes"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("listen", "127.0.0.1", "must be HOST:PORT"),
        ("target", "http://127.0.0.1:50051", "must be a gRPC target"),
        ("root_path", "images", "must be a path such as /images"),
        ("public_url", "example.org", "must be an http:// or https:// URL"),
        ("target_tls", {"certificate": "a"}, "must be given together"),
        ("files", {"keep": 1}, "Extra inputs are not permitted"),
        ("listens", "127.0.0.1:1", "Extra inputs are not permitted"),
    ],
)
def test_what_is_not_allowed_is_named(name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}[\s\S]*{re.escape(words)}"):
        load_settings({name: value})


def test_variable_that_is_no_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_GATEWAY_TARGETS", "x")
    with pytest.raises(ValueError, match="did you mean SAFELIGHT_GATEWAY_TARGET"):
        load_settings()


def test_variables_of_the_service_are_none_of_its_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAFELIGHT_QUEUE_SIZE", "3")
    load_settings()


def test_token_is_not_shown() -> None:
    assert "secret" not in repr(load_settings({"token": "secret"}))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.toml"):
        load_settings({}, tmp_path / "nowhere.toml")


def test_every_setting_is_documented() -> None:
    text = DOCUMENTATION.read_text()
    assert [name for name in Settings.model_fields if not re.search(rf"`{name}[`.]", text)] == []
