import json
from collections.abc import Callable
from pathlib import Path

import pytest

from safelight_service.engine.batching.estimates.batch_profile import (
    ProfileStore,
    WidthSearch,
    choose_cap,
)

AREA = 1024 * 1024
"""Area in the middle of its half octave, so that the profile keeps the measured values."""


def learn(
    seconds: Callable[[int], float], rows_per_call: int = 2, most_calls: int = 100
) -> WidthSearch:
    """Run forwards as wide as the search allows, until it allows the same width 20 times."""
    search = WidthSearch()
    before: list[int] = []
    while before[-20:] != [search.cap] * 20:
        before.append(search.cap)
        calls = min(max(1, search.cap // rows_per_call), most_calls)
        search.note(calls * rows_per_call, seconds(calls * rows_per_call))
    return search


def test_a_device_that_is_saturated_by_one_call_is_not_given_two() -> None:
    search = learn(lambda rows: 0.01 * rows)
    assert set(search.profile) == {2, 4}
    assert search.cap == 2


def test_a_wide_device_is_given_all_rows_that_are_for_free() -> None:
    search = learn(lambda rows: 0.01 * max(rows, 8))
    assert set(search.profile) == {2, 4, 8, 16}
    assert search.cap == 8


def test_the_first_forward_of_a_width_says_nothing() -> None:
    """The first forward may compile for a minute."""
    compiled: set[int] = set()

    def run(rows: int) -> float:
        is_first = rows not in compiled
        compiled.add(rows)
        return 0.01 * max(rows, 8) + 60 * is_first

    assert learn(run).cap == 8


def test_a_forward_that_was_disturbed_says_nothing() -> None:
    runs: list[int] = []

    def run(rows: int) -> float:
        runs.append(rows)
        return 0.01 * max(rows, 8) + len(runs) % 2

    assert learn(run).cap == 8


def test_a_width_that_was_disturbed_whenever_it_was_tried_is_tried_again() -> None:
    """As on a machine that is busy with other work for a while."""
    search = learn(lambda rows: 0.01 * max(rows, 8) + (rows == 4))
    assert search.cap == 2
    caps: set[int] = set()
    for _ in range(1000):
        caps.add(search.cap)
        search.note(search.cap, 0.01 * max(search.cap, 8))
    assert search.cap == 8
    assert caps == {2, 4, 8, 16}


def test_wider_forwards_are_rare_where_they_do_not_pay() -> None:
    search = learn(lambda rows: 0.01 * rows)
    wide = 0
    for _ in range(2000):
        wide += search.cap > 2
        search.note(search.cap, 0.01 * search.cap)
    assert 0 < wide <= 40


def test_width_goes_as_far_as_callers_have_filled_it() -> None:
    """After three callers at once, five or six may merge next, but not more."""
    search = learn(lambda rows: 1.0, rows_per_call=1, most_calls=3)
    assert set(search.profile) == {1, 2, 3}
    assert search.cap == 6


def test_what_is_recalled_is_not_measured_again() -> None:
    search = WidthSearch()
    search.recall({1: 1.0, 2: 2.0})
    assert search.cap == 1


def test_the_smallest_width_that_is_nearly_the_best_is_chosen() -> None:
    assert choose_cap({1: 1.0, 2: 1.05, 4: 2.0, 8: 3.95}) == 4


def test_profiles_outlive_the_process(tmp_path: Path) -> None:
    file = tmp_path / "new" / "profiles.json"
    ProfileStore(file).put("a model", AREA, {1: 0.5, 2: 0.75})
    assert ProfileStore(file).get("a model", AREA) == {1: 0.5, 2: 0.75}
    assert ProfileStore(file).get("another", AREA) is None


def test_images_of_about_the_same_area_share_a_profile_by_the_pixel() -> None:
    store = ProfileStore(None)
    store.put("a model", 1024 * 1024, {1: 0.5, 2: 0.75})
    assert store.get("a model", 768 * 1344) == pytest.approx({1: 0.4922, 2: 0.7383}, rel=1e-3)
    assert store.get("a model", 512 * 512) is None
    assert store.get("a model", 1216 * 1216) is None


def test_however_many_sizes_there_are_few_are_measured() -> None:
    store = ProfileStore(None)
    measured = 0
    for side in range(64, 2049, 8):
        if store.get("a model", side * side) is None:
            store.put("a model", side * side, {1: 0.5})
            measured += 1
    assert measured < 25


@pytest.mark.parametrize("text", ["", "{", json.dumps([1])])
def test_a_damaged_file_of_profiles_is_measured_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "profiles.json"
    file.write_text(text)
    store = ProfileStore(file)
    assert store.get("a model", AREA) is None
    store.put("a model", AREA, {1: 0.5})
    assert ProfileStore(file).get("a model", AREA) == {1: 0.5}


def test_profiles_that_cannot_be_written_are_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = ProfileStore(tmp_path / "file" / "profiles.json")
    store.put("a model", AREA, {1: 0.5})
    assert store.get("a model", AREA) == {1: 0.5}
