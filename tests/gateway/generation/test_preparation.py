"""The prepared request: the steps that are shown of an image, and the time of its result."""

import pytest
from safelight import CacheStatus, Completed, Image, Model, ModelState, Timings, Usage

from safelight_gateway.generation.preparation import PreparedRequest, spread_previews
from safelight_gateway.generation.request import ImageRequest

IMAGE = Image(
    image_index=0,
    mime_type="image/png",
    width=64,
    height=64,
    seed=1,
    is_flagged=False,
    sha256="",
    data=b"",
)


@pytest.mark.parametrize(
    ("usage", "compute_s"),
    [(Usage(device_time_s=0.25, image_count=1, pixel_count=4096, step_count=4), 0.25), (None, 14)],
)
def test_the_time_of_a_result_is_that_of_the_device(usage: Usage | None, compute_s: float) -> None:
    """An older service only reports phases, in which images wait for each other."""
    timings = Timings(
        model_load_s=1,
        queue_s=1,
        text_encode_s=2,
        denoise_s=4,
        decode_s=8,
        image_encode_s=16,
        total_s=32,
    )
    completed = Completed(
        timings=timings, step_count=4, batch_widths={}, cache=CacheStatus.MISS, usage=usage
    )
    model = Model(name="m", revision="", is_default=True, state=ModelState.READY, capabilities=None)
    prepared = PreparedRequest.of(ImageRequest(prompt="a red circle"), model)
    assert prepared.result([IMAGE], completed).compute_s == compute_s


@pytest.mark.parametrize(
    ("count", "step_count", "steps"),
    [
        (0, 20, ()),
        (1, 20, (10,)),
        (2, 20, (6, 12)),
        (3, 20, (5, 10, 15)),
        (3, 4, (1, 2, 3)),
        (3, 5, (1, 2, 3)),
        (2, 2, (1,)),
        (3, 1, ()),
        (1, -5, ()),
    ],
)
def test_previews_are_spread_over_the_steps(
    count: int, step_count: int, steps: tuple[int, ...]
) -> None:
    assert spread_previews(count, step_count) == steps


def test_previews_are_as_many_as_asked_where_the_steps_suffice() -> None:
    for count in (1, 2, 3):
        for step_count in range(count + 1, 60):
            steps = spread_previews(count, step_count)
            assert len(steps) == count
            assert all(step % steps[0] == 0 and 0 < step < step_count for step in steps)
