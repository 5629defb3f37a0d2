"""The claims of a picture that is opened in the playground."""

from playwright.sync_api import Page, expect

from support.running_gateway import RunningGateway
from support.signed_images.pictures import draw
from support.signed_images.signing import SIGNER, make_authority
from tests.gateway.playground.page_steps import check_accessibility, open_page

WIDTH_PX = 360


def test_a_picture_shows_its_claims_and_gives_its_settings_back(
    page: Page, gateway: RunningGateway
) -> None:
    signed = make_authority().sign(
        draw("image/webp"), "image/webp", softwareAgent={"name": "shapes"}
    )
    page.set_viewport_size({"width": WIDTH_PX, "height": 900})
    open_page(page, gateway.url)
    chosen = page.locator("#file")
    chosen.set_input_files({"name": "café.webp", "mimeType": "image/webp", "buffer": signed})
    claims = page.get_by_role("region", name="Claims of café.webp")
    expect(claims).to_contain_text("Signed, and unchanged since.")
    expect(claims).to_contain_text(SIGNER)
    expect(claims).to_contain_text("Made by a modelYes")
    expect(claims).to_contain_text("Modelshapes")
    expect(page.locator("#num_inference_steps")).to_have_value("4")
    check_accessibility(page, WIDTH_PX)
    plain = draw("image/jpeg")
    chosen.set_input_files({"name": "plain.jpg", "mimeType": "image/jpeg", "buffer": plain})
    claims = page.get_by_role("region", name="Claims of plain.jpg")
    expect(claims).to_contain_text("Nothing is signed")
    expect(claims).to_contain_text("shapes r1 (unsigned)")
    chosen.set_input_files({"name": "notes.png", "mimeType": "image/png", "buffer": b"text"})
    claims = page.get_by_role("region", name="Claims of notes.png")
    expect(claims).to_contain_text("must be a PNG, JPEG or WebP")
    claims.get_by_role("button", name="Close").click()
    expect(claims).to_be_hidden()
