"""Buckets: the widths that forwards are prepared for."""

import pytest

from safelight_service.engine.compilation.buckets import choose_buckets, list_widths


@pytest.mark.parametrize(
    ("profile", "kept"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}, (1, 2, 4, 8)),  # rows cost nothing
        ({1: 1.0, 2: 2.0, 4: 4.0}, (1,)),  # wider forwards gain nothing
        ({2: 1.0, 4: 1.6, 8: 3.1, 16: 6.2}, (2, 4)),  # a gain of 3 % is too small
        ({1: 1.0, 2: 1.96, 4: 3.6}, (1, 4)),  # omitted widths do not count in comparisons
        ({4: 9.0}, (4,)),
    ],
)
def test_buckets_that_pay_are_kept(profile: dict[int, float], kept: tuple[int, ...]) -> None:
    assert choose_buckets(profile) == kept


@pytest.mark.parametrize(
    ("most_images", "widths"),
    [
        (None, (1, 2, 4, 8, 16)),
        (1, (1,)),
        (4, (1, 2, 4)),
        (6, (1, 2, 4, 6)),
        (99, (1, 2, 4, 8, 16)),
    ],
)
def test_no_wider_forwards_are_prepared_than_images_may_share(
    most_images: int | None, widths: tuple[int, ...]
) -> None:
    assert list_widths(most_images) == widths
