"""Previews: processor time of a preview, as a share of a denoising step's.

Measures the processor time of single threads, so other work on the machine does not count.
"""

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.harness.report import write_report
from safelight_service.engine.models.loading import load_model
from safelight_service.engine.pipeline.image_file import encode_preview
from safelight_service.engine.pipeline.preview import unpack
from safelight_service.engine.pipeline.rendering import Pixels
from safelight_service.settings import load_settings

REPEATS = 200
SIZE_PX = 128


def main() -> None:
    """Measure, print and save."""
    torch.set_num_threads(1)  # so that this thread alone computes a step
    model = load_model(load_settings().models[0])
    colours = model.latent_colours
    assert colours is not None
    pipeline = model.adapter.pipeline
    cells = SIZE_PX // pipeline.vae_scale_factor
    channels = len(colours.weight) - 1
    latents = torch.randn(1, channels, cells, cells)
    prompts = torch.randn(2, 8, pipeline.text_encoder.config.hidden_size)

    def make_step() -> object:
        with torch.no_grad():
            return pipeline.unet(latents.repeat(2, 1, 1, 1), 500, prompts)

    def draw() -> object:
        return colours.draw(unpack(pipeline, latents, SIZE_PX, SIZE_PX))

    cells_drawn = colours.draw(latents)
    assert cells_drawn is not None
    picture = Pixels(cells_drawn).take()[0].resize((SIZE_PX, SIZE_PX))
    figures = {
        "guided_step_ms": thread_ms(make_step, REPEATS // 10),
        "preview_on_the_device_thread_ms": thread_ms(draw, REPEATS),
        "preview_in_the_encoders_ms": thread_ms(lambda: encode_preview(picture, "image/jpeg")),
    }
    step_ms, draw_ms, encode_ms = figures.values()
    figures["preview_share_of_a_step"] = (draw_ms + encode_ms) / step_ms
    for name, figure in figures.items():
        print(f"{name:<34}{figure:>9.3f}")
    write_report("previews", figures)


def thread_ms(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median processor time of a call in this thread, in milliseconds.

    Warms up with a tenth of the repeats.
    """
    taken = []
    for _ in range(repeats + repeats // 10):
        begun_at = time.thread_time()
        work()
        taken.append((time.thread_time() - begun_at) * 1e3)
    return statistics.median(taken[repeats // 10 :])


if __name__ == "__main__":
    main()
