"""Settings come from the form, links and PNG files, and go to the service and into code."""

import io

import PIL.Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import FilePayload, Page, expect
from safelight import Client

from safelight_gateway.settings import TargetTlsSettings
from support.running_gateway import RunningGateway, run_gateway
from support.running_service import RunningService
from tests.client.scripted_service import (
    ScriptedService,
    accepted,
    completed,
    image,
)
from tests.gateway.playground.page_steps import (
    alert,
    fill,
    generate,
    open_page,
)

DROP = """([bytes, name]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
  for (const kind of ["dragover", "drop"]) {
    document.body.dispatchEvent(
      new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true })
    );
  }
}"""


A1111_TEXT = """a cat
Negative prompt: a dog,
blurred
Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 9, Size: 512x512, Model: sd"""


def test_every_bad_field_is_named_at_once(page: Page, gateway: RunningGateway) -> None:
    open_page(page, gateway.url)
    fill(page, "", width=77, height=64.5, seed="abc")
    page.locator("#num_inference_steps").fill("")
    page.locator("#num_inference_steps").press_sequentially("e")
    page.locator("#image_count").fill("0")
    page.get_by_role("button", name="Generate").click()
    errors = {
        "inputs": "Say what to draw.",
        "width": "Must be a multiple of 8 between 64 and 512, not 77.",
        "height": "Must be an integer within 32 bits.",
        "num_inference_steps": "Must be a number.",
        "seed": "Must be an integer within 64 bits.",
        "image_count": "Must be from 1 to",
    }
    for name, words in errors.items():
        expect(page.locator(f"#{name}-error")).to_contain_text(words)
        expect(page.locator(f"#{name}")).to_have_attribute("aria-invalid", "true")
        expect(alert(page)).to_contain_text(words)
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    fill(page, "a star", width=64, height=64, seed=1, num_inference_steps=1, image_count=1)
    for name in errors:
        expect(page.locator(f"#{name}-error")).to_be_hidden()
    expect(alert(page)).to_be_hidden()
    expect(page.locator("[aria-invalid]")).to_have_count(0)
    fill(page, "a star", width=77, num_inference_steps=0)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#width")).to_be_focused()
    expect(page.locator("#width-error")).to_have_text(errors["width"])
    expect(page.locator("#num_inference_steps-error")).to_contain_text("from 1 to 150")
    expect(page.locator("[aria-invalid]")).to_have_count(2)


def test_a_link_holds_the_prompt_and_the_settings(page: Page, gateway: RunningGateway) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(page, gateway.url)
    fill(
        page,
        "a star & a “heart”\n50 %",
        width=96,
        num_inference_steps=7,
        step_reuse=0.4,
        seed=2**60,
    )
    page.get_by_label("outline", exact=True).check()
    page.get_by_label("Scale of pastel").fill("0.5")
    page.get_by_label("Scheduler").select_option("euler")
    expect(page.locator("#code")).to_contain_text("step_reuse=0.4")
    expect(page.locator("#code")).to_contain_text('adapters={"pastel": 0.5, "outline": 1}')
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    link: str = page.evaluate("navigator.clipboard.readText()")
    other = page.context.new_page()
    other.goto(link)
    expect(other.locator("#form-news")).to_have_text("The settings of that link are set.")
    for name, value in (
        ("inputs", "a star & a “heart”\n50 %"),
        ("width", "96"),
        ("num_inference_steps", "7"),
        ("step_reuse", "0.4"),
        ("step_reuse-range", "0.4"),
        ("seed", str(2**60)),
        ("scheduler", "euler"),
        ("adapters", "pastel:0.5 outline:1"),
    ):
        expect(other.locator(f"#{name}")).to_have_value(value)
    assert "#" not in other.url
    settings = "inputs=a+heart&model=gone&scheduler=none&adapters=ink:1&theme=x"
    other.evaluate(f"location.hash = '{settings}'")
    expect(other.locator("#form-news")).to_have_text(
        "The settings of that link are set, but not what is not offered here: "
        "the model gone, scheduler none, adapter ink."
    )
    expect(other.locator("#inputs")).to_have_value("a heart")
    expect(other.locator("#seed")).to_have_value("")


def test_a_png_gives_its_settings_back(
    page: Page, gateway: RunningGateway, service: RunningService
) -> None:
    prompt = "a yellow star ★\nat night"
    with Client(service.target) as client:
        made = client.generate(
            prompt,
            seed=5,
            num_inference_steps=2,
            step_reuse=0.25,
            width=96,
            height=64,
            scheduler="euler",
            adapters={"pastel": 0.25},
        )
        with made:
            (picture,) = made.images()
    open_page(page, gateway.url)
    page.evaluate(DROP, [list(picture.data), "star.png"])
    expect(page.locator("#form-news")).to_have_text("The settings of that picture are set.")
    for name, value in (
        ("inputs", prompt),
        ("width", "96"),
        ("height", "64"),
        ("num_inference_steps", "2"),
        ("step_reuse", "0.25"),
        ("seed", "5"),
        ("scheduler", "euler"),
        ("adapters", "pastel:0.25"),
    ):
        expect(page.locator(f"#{name}")).to_have_value(value)
    expect(page.locator("body")).not_to_have_class("dropping")
    for text, news, inputs in (
        (None, "holds no settings", prompt),
        ("no settings", "holds no settings", prompt),
        (A1111_TEXT, "not offered here: the model sd, scheduler DPM++ 2M.", "a cat"),
    ):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Open a picture").click()
        chooser.value.set_files(png_file(text))
        expect(page.locator("#form-news")).to_contain_text(news)
        expect(page.locator("#inputs")).to_have_value(inputs)
    expect(page.locator("#negative_prompt")).to_have_value("a dog,\nblurred")
    expect(page.locator("#scheduler")).to_have_value("")


def png_file(text: str | None) -> FilePayload:
    """Return a PNG file that holds this text as its parameters, or nothing."""
    stream, chunks = io.BytesIO(), PngInfo()
    if text is not None:
        chunks.add_text("parameters", text)
    PIL.Image.new("RGB", (8, 8)).save(stream, "PNG", pnginfo=chunks)
    return {"name": "cat.png", "mimeType": "image/png", "buffer": stream.getvalue()}


def test_a_picture_is_enlarged_and_copied_and_its_seed_is_kept(
    scripted: ScriptedService, scripted_gateway: RunningGateway, page: Page
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(page, scripted_gateway.url)
    scripted.play(accepted(), image(), completed())
    generate(page, "a yellow star")
    page.get_by_role("button", name="Enlarge picture 1").click()
    shown = page.locator("#viewer-image")
    wide = shown.evaluate("(image) => image.clientWidth")
    page.get_by_role("button", name="Actual size").click()
    assert shown.evaluate("(image) => [image.clientWidth, image.naturalWidth]") == [16, 16]
    page.get_by_role("button", name="Actual size").click()
    assert shown.evaluate("(image) => image.clientWidth") == wide > 16
    page.get_by_role("button", name="Copy picture").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    kinds = page.evaluate("navigator.clipboard.read().then(([item]) => item.types)")
    assert kinds == ["image/png"]
    page.get_by_role("button", name="Close").click()
    lock = page.get_by_role("button", name="Lock")
    for count, is_pressed in ((2, "true"), (3, "false")):
        lock.click()
        expect(lock).to_have_attribute("aria-pressed", is_pressed)
        generate(page, "a green heart")
        expect(page.locator("#pictures li")).to_have_count(count)
    seeds = [each.parameters.HasField("seed") for each in scripted.requests]
    assert seeds == [False, True, False]
    assert scripted.requests[1].parameters.seed == 7
    page.locator("#pictures button").first.click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("button", name="Enlarge picture 1")).to_have_count(0)
    expect(page.locator(".sheet img")).to_have_count(1)


def test_the_code_calls_the_service_of_the_gateway(page: Page) -> None:
    code = page.locator("#code")
    for target, tls, python, buf in (
        ("localhost:7", None, 'Client("127.0.0.1:7")', "http://127.0.0.1:7/safelight"),
        (
            "dns:///gpu-1:7",
            TargetTlsSettings(),
            'Client("dns:///gpu-1:7", tls=True)',
            "https://gpu-1:7/safelight",
        ),
        ('unix:///a/"s"', None, r'Client("unix:///a/\"s\"")', """--unix-socket '/a/"s"'"""),
    ):
        with run_gateway(target, target_tls=tls) as gateway:
            page.goto(f"{gateway.url}/")
            expect(code).to_contain_text(python)
            page.get_by_role("tab", name="buf curl").click()
            expect(code).to_contain_text(buf)
    expect(code).not_to_contain_text("authorization")
    page.get_by_role("button", name="Access").click()
    page.get_by_label("Token").fill("hf_secret")
    page.get_by_role("button", name="Use it").click()
    expect(code).to_contain_text('--header "authorization: Bearer $SAFELIGHT_TOKEN"')
    page.get_by_role("tab", name="Python").click()
    expect(code).to_contain_text('token=os.environ["SAFELIGHT_TOKEN"]')
