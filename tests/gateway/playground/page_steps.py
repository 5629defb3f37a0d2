"""The page under test: how a test opens it, fills it in and reads it."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect
from safelight.v1 import text_to_image_pb2 as pb

_HASH = """async (image) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return `${canvas.width}x${canvas.height} ${canvas.toDataURL()}`;
}"""
"""JavaScript that returns the pixels of an image as text."""


def open_page(page: Page, url: str) -> None:
    page.goto(f"{url}/")
    expect(page.locator("#health")).to_have_text("Ready")


def fill(page: Page, prompt: str, **values: object) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for name, value in values.items():
        page.locator(f"#{name}").fill(str(value))


def generate(page: Page, prompt: str, button: str = "Generate") -> None:
    """Ask for a picture of a prompt."""
    fill(page, prompt)
    page.get_by_role("button", name=button).click()


def alert(page: Page) -> Locator:
    return page.locator("#trouble")


def look_again(page: Page) -> None:
    """Let the page look for the service now, as when its tab comes to the front."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))")


def capabilities() -> pb.ModelCapabilities:
    """Return what a model of a scripted service takes."""
    limits = pb.ModelLimits(
        min_side_px=64, max_side_px=512, size_multiple_px=8, max_step_count=150, max_image_count=4
    )
    defaults = pb.TextToImageParameters(width=128, height=128, num_inference_steps=4)
    return pb.ModelCapabilities(
        supported_parameters=["width", "height", "num_inference_steps", "seed"],
        limits=limits,
        defaults=defaults,
    )


def headline(page: Page) -> Locator:
    return page.locator("#headline")


def finish(page: Page) -> None:
    expect(headline(page)).to_have_text("Here it is")
    expect(page.locator(".sheet img")).to_have_count(1)


def pixels(image: Locator) -> str:
    text: str = image.evaluate(_HASH)
    return text


def check_accessibility(page: Page, width: int) -> None:
    """Check the accessibility of the page as it is, and that nothing overflows it."""
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
    assert page.locator("html").evaluate("(root) => root.scrollWidth") <= width
