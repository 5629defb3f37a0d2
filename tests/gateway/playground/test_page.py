"""The playground, by mouse and keyboard in a real browser."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import grpc
import PIL.Image
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from playwright.sync_api import (
    Page,
    expect,
)
from safelight import CallCancelledError, Client

from support.running_gateway import RunningGateway, run_gateway
from support.running_service import RunningService
from support.tcp_proxy import TcpProxy
from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    model_loading,
    progress,
    queued,
    status,
)
from tests.gateway.playground.page_steps import (
    check_accessibility,
    fill,
    finish,
    headline,
    open_page,
    pixels,
)

PHONE_PX = 600


def test_a_picture_develops_on_the_page(page: Page, gateway: RunningGateway) -> None:
    open_page(page, gateway.url)
    fill(page, "a yellow star at night", num_inference_steps=15, width=96, height=64)
    page.get_by_role("button", name="Generate").click()
    previews: set[str] = set()
    seen = page.locator(".sheet img[alt^='Preview after step']").last
    while len(previews) < 3:
        previews.add(str(seen.get_attribute("src"))[-200:])
    expect(headline(page)).to_have_text(re.compile(r"Step \d+ of 15"))
    expect(page.locator("#detail")).to_have_text(re.compile("left"))
    finish(page)
    assert pixels(page.locator(".sheet img")).startswith("96x64 ")
    expect(page.locator("#announce")).to_have_text(re.compile("Here it is"))
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()


def test_stopping_cancels_on_the_service(
    page: Page, gateway: RunningGateway, service: RunningService
) -> None:
    open_page(page, gateway.url)
    fill(page, "a yellow star at night", num_inference_steps=150)
    with page.expect_request("**/v1/generate") as started:
        page.keyboard.press("Control+Enter")
    request: Any = started.value.post_data_json
    name = request["generation_id"]
    stop = page.get_by_role("button", name="Stop")
    stop.focus()
    expect(headline(page)).to_have_text(re.compile("^Step"))
    with page.expect_response(f"**/v1/generations/{name}"):
        page.keyboard.press("Escape")
    expect(headline(page)).to_have_text("Stopped")
    expect(stop).to_be_hidden()
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    with (
        Client(service.target) as client,
        pytest.raises(CallCancelledError),
        client.watch(name) as watch,
    ):
        list(watch)


def test_a_picture_of_the_gallery_is_made_again_by_its_seed(
    page: Page, gateway: RunningGateway
) -> None:
    open_page(page, gateway.url)
    fill(page, "a green heart on grass", num_inference_steps=5, width=96, height=64)
    page.get_by_label("Scheduler").select_option("euler")
    page.get_by_role("button", name="Generate").click()
    finish(page)
    first = pixels(page.locator(".sheet img"))
    page.reload()  # the gallery outlives the page
    fill(page, "something else")
    page.get_by_role("button", name="Back to the model's defaults").click()
    page.locator("#pictures button").first.click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a green heart on grass")
    expect(page.get_by_label("Scheduler")).to_have_value("euler")
    page.get_by_role("button", name="Generate").click()
    finish(page)
    expect(page.locator("#pictures li")).to_have_count(2)
    assert pixels(page.locator(".sheet img")) == first
    page.locator("#pictures button").first.click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#pictures li")).to_have_count(1)


def test_a_gateway_that_is_gone_is_reported(page: Page, service: RunningService) -> None:
    with run_gateway(service.target) as leaving:
        open_page(page, leaving.url)
    fill(page, "a yellow star", num_inference_steps=2)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("The gateway is gone")
    expect(page.locator("#health")).to_have_text("Not reachable")
    expect(page.locator("#notice")).to_contain_text("The gateway does not answer")


def test_a_connection_that_breaks_is_taken_up_again_below_a_prefix(
    page: Page, gateway: RunningGateway
) -> None:
    with TcpProxy(gateway.url.removeprefix("http://")) as proxy:
        page.goto(f"http://{proxy.target}/seen-by/playground?without=slash")
        expect(page).to_have_url(re.compile(r"/seen-by/playground/\?without=slash$"))
        expect(page.locator("#health")).to_have_text("Ready")  # and the model's defaults are set
        fill(page, "a yellow star at night", num_inference_steps=15, width=64, height=64)
        page.get_by_role("button", name="Generate").click()
        expect(headline(page)).to_have_text(re.compile("^Step"))
        with page.expect_request("**/v1/generations/*") as again:
            proxy.cut()
        assert again.value.method == "GET"
        finish(page)
        expect(page.locator("#pictures li")).to_have_count(1)


def test_the_queue_and_a_model_that_loads_are_shown(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    open_page(page, scripted_gateway.url)
    expect(page.locator("#model-hint")).to_contain_text("not loaded yet")
    fill(page, "a yellow star")
    for script, title, detail in (
        ([model_loading(0.4), HOLD], "The model shapes is being loaded", "40 %, 3 s so far"),
        ([accepted(), queued(2), HOLD], "Number 2 in line", "Others are drawing first."),
        ([accepted(), queued(1), HOLD], "Next in line", "It starts in about 2 s."),
        ([accepted(), progress(2), HOLD], "Step 2 of 4", "about 1 s left"),
    ):
        scripted.play(*script)
        page.keyboard.press("Control+Enter")
        expect(headline(page)).to_have_text(title)
        expect(page.locator("#detail")).to_have_text(detail)
        page.get_by_role("button", name="Stop").click()
        expect(headline(page)).to_have_text("Stopped")


def test_a_full_service_says_when_to_come_back(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    page.clock.install()
    open_page(page, scripted_gateway.url)
    fill(page, "a yellow star")
    full = ErrorInfo(reason="QUEUE_FULL", domain="safelight")
    patience = RetryInfo(retry_delay=Duration(seconds=7))
    scripted.play(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", full, patience))
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("The service is full")
    expect(page.get_by_role("alert")).to_contain_text("come back in about 7 s")
    page.clock.fast_forward(7_000)
    expect(page.get_by_role("alert")).to_contain_text("Ready to try again")
    scripted.play(accepted(), progress(1), HOLD)
    page.get_by_role("button", name="Try again").click()
    expect(headline(page)).to_have_text("Step 1 of 4")


def test_a_service_that_asks_for_a_token_gets_one(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    open_page(page, scripted_gateway.url)
    fill(page, "a yellow star")
    locked = ErrorInfo(reason="UNAUTHENTICATED", domain="safelight")
    scripted.play(status(grpc.StatusCode.UNAUTHENTICATED, "no token", locked))
    page.get_by_role("button", name="Generate").click()
    page.get_by_label("Token").fill("hf_secret")
    scripted.play(accepted(), HOLD)
    page.get_by_role("button", name="Use it").click()
    page.get_by_role("button", name="Try again").click()
    expect(headline(page)).to_have_text("Starting")
    assert scripted.metadata["authorization"] == "Bearer hf_secret"


def test_the_code_makes_the_picture_on_screen(
    page: Page, gateway: RunningGateway, service: RunningService, tmp_path: Path
) -> None:
    open_page(page, gateway.url)
    prompt = """a "red" circle, isn't it"""
    fill(page, prompt, num_inference_steps=3, width=96, height=64)
    page.get_by_role("button", name="Generate").click()
    finish(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).click()
    shown = PIL.Image.open(download.value.path()).tobytes()

    def code(language: str) -> str:
        expect(page.get_by_role("tab", selected=True)).to_have_text(language)
        text = page.locator("#code").text_content()
        page.get_by_role("tab", selected=True).press("ArrowRight")
        assert text is not None
        return text

    (tmp_path / "snippet.py").write_text(code("Python"))
    namespace: dict[str, object] = {}
    exec(
        (tmp_path / "snippet.py").read_text().replace("picture.png", f"{tmp_path}/p.png"), namespace
    )
    assert PIL.Image.open(tmp_path / "p.png").tobytes() == shown

    assert "v1/generate" in code("TypeScript")
    stream = subprocess.run(
        ["bash", "-c", code("curl") + " --silent"], capture_output=True, check=True, timeout=60
    ).stdout.decode()
    digest = hashlib.sha256(Path(download.value.path()).read_bytes()).hexdigest()
    assert digest in stream
    answer = subprocess.run(
        ["bash", "-c", code("buf curl")], capture_output=True, check=True, timeout=60
    ).stdout.decode()
    assert digest in answer


def test_the_code_in_typescript_runs(page: Page, gateway: RunningGateway, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    open_page(page, gateway.url)
    fill(page, "a yellow star", num_inference_steps=6)
    page.get_by_role("tab", name="TypeScript").click()
    text = page.locator("#code").text_content()
    assert text is not None
    # Node 20 cannot parse types; these assertions are the only ones.
    (tmp_path / "snippet.mjs").write_text(text.replace("body!", "body").replace("pop()!", "pop()"))
    result = subprocess.run(
        [node, tmp_path / "snippet.mjs"], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.splitlines()[-1] == "step 6 of 6"


@pytest.mark.parametrize(("theme", "width"), [("light", 1360), ("dark", 360)])
def test_the_page_is_accessible_and_fits(
    page: Page, gateway: RunningGateway, theme: Literal["light", "dark"], width: int
) -> None:
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 740})
    open_page(page, gateway.url)
    page.locator("#settings").evaluate("(details) => { details.open = true; }")
    fill(page, "a yellow star", width=77)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check_accessibility(page, width)
    fill(page, "a yellow star", width=64, height=64, num_inference_steps=1)
    if width < PHONE_PX:  # a thumb reaches it from anywhere on the page
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.locator("footer a")).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("button", name="Generate")).to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="Generate").click()
    finish(page)
    page.locator("#pictures button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check_accessibility(page, width)
