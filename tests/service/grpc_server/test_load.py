"""Load: many clients with all kinds of requests, a third of which leave halfway."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image
from safelight import Client, Completed, Image, Progress

from support.running_service import RunningService

CLIENTS = 32


def draw_request(rng: random.Random) -> dict[str, Any]:
    """Draw a request that differs from others in all ways it may."""
    return {
        "prompt": rng.choice(["a red circle", "two blue stars at night", "a", "heart " * 6]),
        "num_inference_steps": rng.randint(3, 9),
        "guidance_scale": rng.choice([1.0, 3.0, 7.5]),
        "seed": rng.randrange(1000),
        "width": rng.choice([64, 64, 96]),
        "height": 64,
        "scheduler": rng.choice([None, "euler", "dpm++_2m"]),
    }


def test_every_image_is_its_own_while_others_come_and_go(service: RunningService) -> None:
    rng = random.Random(0)
    requests = [draw_request(rng) for _ in range(CLIENTS)]
    leave_after = [rng.randint(1, 3) if number % 3 == 0 else None for number in range(CLIENTS)]
    shared: list[int] = []

    with Client(service.target) as client:

        def generate(request: dict[str, Any], leave_after: int | None) -> PIL.Image.Image | None:
            picture = None
            with client.generate(**request) as events:
                for event in events:
                    match event:
                        case Progress(step=step) if step == leave_after:
                            break
                        case Image():
                            picture = event.pil
                        case Completed():
                            shared.extend(event.batch_widths)
            return picture

        with ThreadPoolExecutor(CLIENTS) as threads:
            together = list(threads.map(generate, requests, leave_after))
        assert max(shared) > 1
        for request, picture, left in zip(requests, together, leave_after, strict=True):
            if left is None:
                alone = client.text_to_image(**request)
                assert picture is not None
                difference = np.asarray(alone).astype(int) - np.asarray(picture)
                # Equal up to rounding: a wider batch sums in another order.
                assert np.abs(difference).max() <= 1
