"""Fixtures of the playground's tests: one browser, and a separate profile for each test."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from safelight.v1 import text_to_image_pb2 as pb

from support.running_gateway import RunningGateway, run_gateway
from tests.client.scripted_service import ScriptedService

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_PATIENCE_MS = 30_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, if it is there."""
    if CHROMIUM is None:
        pytest.skip("run scripts/install-test-servers first: there is no chromium")
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work inside a container.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a fresh profile; fails on errors in its console and on requests to other hosts."""
    context = browser.new_context(viewport={"width": 1360, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    complaints: list[str] = []
    foreign: list[str] = []

    def note_origin(request: Request) -> None:
        if request.is_navigation_request() or request.url.startswith(("data:", "blob:")):
            return
        if request.url.split("/")[:3] != request.frame.url.split("/")[:3]:
            foreign.append(request.url)

    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        # Chromium logs refused requests as errors, but they are no fault of the page.
        lambda message: (
            complaints.append(message.text)
            if message.type in ("error", "warning")
            and "Failed to load resource" not in message.text
            else None
        ),
    )
    page.on("request", note_origin)
    yield page
    context.close()
    assert complaints == []
    assert foreign == []


@pytest.fixture
def scripted() -> Iterator[ScriptedService]:
    """A service that plays a script."""
    with ScriptedService() as service:
        service.models = [pb.Model(name="shapes", is_default=True, state=pb.MODEL_STATE_NOT_LOADED)]
        yield service


@pytest.fixture
def scripted_gateway(scripted: ScriptedService) -> Iterator[RunningGateway]:
    """A gateway to a service that plays a script."""
    with run_gateway(scripted.target) as running:
        yield running
