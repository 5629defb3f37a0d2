"""Messages of the page end with their cause, and pictures on it stay."""

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from playwright.sync_api import Page, expect
from safelight.v1 import text_to_image_pb2 as pb

from support.running_gateway import RunningGateway, run_gateway
from support.tcp_proxy import TcpProxy
from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    completed,
    image,
    preview,
    progress,
    status,
)
from tests.gateway.playground.page_steps import (
    alert,
    capabilities,
    fill,
    generate,
    headline,
    look_again,
    open_page,
)


def refusal(*fields: str) -> Status:
    """Return the status that refuses these fields."""
    violations = [
        BadRequest.FieldViolation(field=field, description=f"{field} is wrong") for field in fields
    ]
    info = ErrorInfo(reason="INVALID_REQUEST", domain="safelight")
    return status(
        grpc.StatusCode.INVALID_ARGUMENT, "bad", info, BadRequest(field_violations=violations)
    )


def exhausted(info: ErrorInfo) -> Status:
    """Return the status of a service that lacks something."""
    return status(grpc.StatusCode.RESOURCE_EXHAUSTED, "too little", info)


@pytest.mark.slow
def test_a_service_that_is_back_is_announced_where_it_was_missed(
    scripted: ScriptedService, page: Page
) -> None:
    with TcpProxy(scripted.target) as proxy, run_gateway(proxy.target) as gateway:
        open_page(page, gateway.url)
        proxy.close()
        generate(page, "a yellow star")
        expect(alert(page)).to_contain_text("The service is gone")
        expect(page.locator("#health")).to_have_text("Service is gone")
        expect(page.locator("#notice")).to_contain_text("The service does not answer.")
        with TcpProxy(scripted.target, port=proxy.port):
            expect(alert(page)).to_contain_text("Ready to try again")
            expect(page.locator("#health")).to_have_text("Ready")
            expect(page.locator("#notice")).to_be_hidden()
            scripted.play(accepted(), progress(1), HOLD)
            alert(page).get_by_role("button", name="Try again").click()
            expect(headline(page)).to_have_text("Step 1 of 4")
            expect(alert(page)).to_be_hidden()


def test_the_last_picture_outlives_a_request_that_fails(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    open_page(page, scripted_gateway.url)
    scripted.play(accepted(), image(), completed())
    generate(page, "a yellow star")
    expect(headline(page)).to_have_text("Here it is")
    large = ErrorInfo(reason="OUT_OF_MEMORY", domain="safelight")
    for script, words in (
        ((refusal("inputs"),), "Inputs is wrong"),
        ((accepted(), progress(1), preview(1), exhausted(large)), "Too large"),
    ):
        scripted.play(*script)
        generate(page, "a green heart")
        expect(alert(page)).to_contain_text(words)
        expect(page.locator(".sheet img")).to_have_attribute("alt", "a yellow star")
        expect(headline(page)).to_have_text("Here it is")
        expect(page.get_by_role("link", name="Download", exact=True)).to_be_visible()
        alert(page).get_by_role("button", name="Dismiss").click()
        expect(alert(page)).to_be_hidden()


def test_a_reload_takes_up_what_runs_and_what_waits(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    open_page(page, scripted_gateway.url)
    scripted.play(accepted(), progress(2), HOLD)
    generate(page, "a yellow star")
    expect(headline(page)).to_have_text("Step 2 of 4")
    expect(page).to_have_title("50 % · Safelight")
    generate(page, "a green heart", button="Queue next")
    expect(page.locator("#waiting li")).to_have_text("a green heartRemove")
    fill(page, "not sent yet")
    scripted.play(accepted(), image(), completed())
    page.reload()
    expect(page.locator("#pictures li")).to_have_count(2)
    alts = page.locator("#pictures img").evaluate_all("(all) => all.map((each) => each.alt)")
    assert alts == ["a green heart", "a yellow star"]
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("not sent yet")
    expect(page).to_have_title("Safelight")
    expect(page.locator("#queue")).to_be_hidden()
    assert [each.inputs for each in scripted.requests] == ["a yellow star", "a green heart"]
    assert scripted.cancelled_ids == []
    page.reload()
    expect(page.locator("#pictures li")).to_have_count(2)
    assert len(scripted.requests) == 2


def test_a_picture_that_was_left_alone_for_too_long_is_not_begun_again(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    open_page(page, scripted_gateway.url)
    scripted.play(accepted(), progress(2), HOLD)
    generate(page, "a yellow star")
    expect(headline(page)).to_have_text("Step 2 of 4")
    unknown = ErrorInfo(reason="GENERATION_NOT_FOUND", domain="safelight")
    scripted.play(status(grpc.StatusCode.NOT_FOUND, "unknown", unknown))
    page.reload()
    expect(alert(page)).to_contain_text("The picture was not finished")
    assert len(scripted.requests) == 1
    scripted.play(accepted(), image(), completed())
    alert(page).get_by_role("button", name="Try again").click()
    expect(headline(page)).to_have_text("Here it is")


def test_a_refused_request_of_the_queue_can_be_put_right(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    open_page(page, scripted_gateway.url)
    scripted.play(accepted(), progress(1), HOLD)
    generate(page, "a yellow star")
    expect(headline(page)).to_have_text("Step 1 of 4")
    generate(page, "a green heart", button="Queue next")
    generate(page, "a red circle", button="Queue next")
    page.get_by_role("button", name="Remove a red circle").click()
    expect(page.get_by_role("button", name="Remove a green heart")).to_be_focused()
    fill(page, "something else")
    scripted.play(refusal("inputs", "parameters.seed"))
    page.get_by_role("button", name="Stop").click()
    expect(alert(page)).to_contain_text("“a green heart” cannot be drawn")
    expect(alert(page)).to_contain_text("Prompt: inputs is wrong; Seed: parameters.seed is wrong")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("something else")
    expect(page.locator("#inputs-error")).to_be_hidden()
    alert(page).get_by_role("button", name="Edit it").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a green heart")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    expect(page.locator("#seed-error")).to_have_text("Parameters.seed is wrong.")
    page.locator("#seed").fill("3")
    expect(page.locator("#seed-error")).to_be_hidden()
    expect(alert(page)).to_contain_text("Prompt: Inputs is wrong.")
    fill(page, "a green heart on grass")
    expect(alert(page)).to_be_hidden()


def test_a_failure_holds_the_queue_back(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    open_page(page, scripted_gateway.url)
    scripted.play(accepted(), progress(1), HOLD)
    generate(page, "a yellow star")
    expect(headline(page)).to_have_text("Step 1 of 4")
    for prompt in ("a green heart", "a red circle"):
        generate(page, prompt, button="Queue next")
    scripted.play(exhausted(ErrorInfo(reason="OUT_OF_MEMORY", domain="safelight")))
    page.keyboard.press("Escape")
    expect(alert(page)).to_contain_text("Too large for the device")
    expect(page.locator("#queue-title")).to_have_text("Paused (1)")
    scripted.play(accepted(), image(), completed())
    page.get_by_role("button", name="Go on").click()
    expect(headline(page)).to_have_text("Here it is")
    expect(page.locator(".sheet img")).to_have_attribute("alt", "a red circle")
    expect(alert(page)).to_be_hidden()


def test_tabs_have_forms_of_their_own(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    open_page(page, scripted_gateway.url)
    fill(page, "a yellow star")
    other = page.context.new_page()
    open_page(other, scripted_gateway.url)
    expect(other.get_by_label("Prompt", exact=True)).to_have_value("")
    scripted.play(accepted(), image(), completed())
    generate(other, "a green heart")
    expect(headline(other)).to_have_text("Here it is")
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a yellow star")
    third = page.context.new_page()
    open_page(third, scripted_gateway.url)
    expect(third.get_by_label("Prompt", exact=True)).to_have_value("a green heart")


def test_a_model_that_others_load_shows_its_settings(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    scripted.models = [pb.Model(name="shapes", is_default=True, state=pb.MODEL_STATE_LOADING)]
    page.goto(f"{scripted_gateway.url}/")
    expect(page.locator("#health")).to_have_text("Model is loading")
    page.locator("#seed").fill("3")
    scripted.models = [
        pb.Model(
            name="shapes", is_default=True, state=pb.MODEL_STATE_READY, capabilities=capabilities()
        )
    ]
    look_again(page)
    expect(page.locator("#health")).to_have_text("Ready")
    expect(page.get_by_label("Width")).to_have_value("128")
    expect(page.locator("#seed")).to_have_value("3")
    page.get_by_label("Width").fill("64")
    scripted.models = [*scripted.models, pb.Model(name="other")]
    look_again(page)
    expect(page.locator("#model option")).to_have_count(2)
    expect(page.get_by_label("Width")).to_have_value("64")


def test_a_connection_that_falls_silent_is_taken_up_again(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    page.clock.install()
    with TcpProxy(scripted_gateway.url.removeprefix("http://")) as proxy:
        open_page(page, f"http://{proxy.target}")
        scripted.play(accepted(), progress(2), HOLD)
        generate(page, "a yellow star")
        expect(headline(page)).to_have_text("Step 2 of 4")
        page.clock.fast_forward(31_000)
        expect(headline(page)).to_have_text("The connection broke")
        with page.expect_request("**/v1/generations/*") as again:
            page.clock.fast_forward(1_000)
        assert again.value.method == "GET"
