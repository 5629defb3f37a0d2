"""The command `safelight-gateway`: its output, its options, and how it stops."""

import os
import resource
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.gateway.failing_service import ENDLESS, FailingService
from tests.gateway.http_call import get, post

_READY = "Safelight's gateway is ready on "


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "safelight_gateway", *arguments]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SAFELIGHT_")}
    return {**inherited, **settings}


@contextmanager
def started(*arguments: str, **settings: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Start the command; yield the URL it prints, and its process."""
    with subprocess.Popen(
        command("--listen", "127.0.0.1:0", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({f"SAFELIGHT_GATEWAY_{k.upper()}": v for k, v in settings.items()}),
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(_READY), process.communicate()[1]
            yield line.removeprefix(_READY).strip(), process
        finally:
            process.kill()


def test_it_serves_below_its_prefix_until_a_signal(
    failing_service: FailingService,
) -> None:
    with started("--target", failing_service.target, "--root-path", "/images") as (url, process):
        # A proxy in front may remove the prefix or keep it.
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard
        for prefix in ("", "/images"):
            result = post(f"{url}{prefix}/fal-ai/shapes", {"prompt": "x"}).json
            assert result["images"][0]["url"].startswith(f"{url}/images/files/")
            assert get(result["images"][0]["url"]).image.size == (16, 16)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_jobs_are_cancelled_when_it_stops(failing_service: FailingService) -> None:
    failing_service.has_arrived, failing_service.has_left = threading.Event(), threading.Event()
    with started(target=failing_service.target) as (url, process):
        assert post(f"{url}/fal-queue/{ENDLESS}", {"prompt": "x"}).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert failing_service.has_left.wait(10)


def test_new_certificates_are_taken_without_a_restart(
    failing_service: FailingService, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def issue() -> ssl.SSLContext:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        key.write_bytes(issued.private_key_pem.bytes())
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    def is_trusted(context: ssl.SSLContext) -> bool:
        try:
            with urllib.request.urlopen(f"{url}/api/tasks", context=context):
                return True
        except OSError:
            return False

    config = tmp_path / "gateway.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nprivate_key = "{key}"\n')
    old = issue()
    target = failing_service.target
    with started("--config", str(config), "--target", target) as (url, process):
        assert url.startswith("https://")
        assert is_trusted(old)
        new = issue()
        while not is_trusted(new):
            assert process.poll() is None
        assert not is_trusted(old)


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (["--listen", "nowhere"], {}, "listen: must be HOST:PORT"),
        ([], {"TLS": '{"certificate": "/nowhere", "private_key": "/nowhere"}'}, "No such file"),
    ],
)
def test_mistakes_stop_the_start_and_are_named(
    arguments: list[str], settings: Mapping[str, str], words: str
) -> None:
    variables = {f"SAFELIGHT_GATEWAY_{name}": value for name, value in settings.items()}
    process = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment(variables),
        check=False,
        timeout=30,
    )
    assert process.returncode == 2
    assert words in process.stderr
    assert "Traceback" not in process.stderr


def test_a_port_that_is_taken_is_a_failure(failing_service: FailingService) -> None:
    with started(target=failing_service.target) as (url, _):
        process = subprocess.run(
            command("--listen", url.removeprefix("http://")),
            capture_output=True,
            text=True,
            env=environment({}),
            check=False,
            timeout=30,
        )
    assert process.returncode == 1
    assert "address already in use" in process.stderr
