"""Logs: one line for each event, with any text."""

import json
from collections.abc import Iterator

import pytest
import structlog

from safelight_service.logs import configure_logs
from safelight_service.settings import Settings

ODD = "one\r\ntwo\x1b[31m\x00 \u202eeerht\u202c \N{ARTIST PALETTE}"


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_control_characters_are_escaped(log_format: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Fault 46: logged text, such as an error of a library, cannot forge lines."""
    writer = configure_logs(Settings(log_format=log_format))
    structlog.get_logger().error("model_failed", error=ODD, model="x")
    writer.close()
    line = capfd.readouterr().err
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    if log_format == "json":
        assert json.loads(line)["error"] == ODD
