"""The page under test: how a test opens it, fills it in and reads it."""

from playwright.sync_api import Locator, Page, expect

_HASH = """async (image) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return `${canvas.width}x${canvas.height} ${canvas.toDataURL()}`;
}"""
"""The pixels of an image, as text that is equal where they are."""


def open_page(page: Page, url: str) -> None:
    page.goto(f"{url}/")
    expect(page.locator("#health")).to_have_text("Ready")


def fill(page: Page, prompt: str, **values: object) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for name, value in values.items():
        page.locator(f"#{name}").fill(str(value))


def headline(page: Page) -> Locator:
    return page.locator("#headline")


def finish(page: Page) -> None:
    expect(headline(page)).to_have_text("Here it is")
    expect(page.locator(".sheet img")).to_have_count(1)


def pixels(image: Locator) -> str:
    text: str = image.evaluate(_HASH)
    return text
