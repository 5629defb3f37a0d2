import json
import time
from pathlib import Path

import pytest
import torch

from safelight_service.engine.widths import ProfileStore, choose_cap, measure

AREA = 1024 * 1024
"""In the middle of its half octave, so that what is kept of it is what was measured."""


class FakeDevice:
    """A clock that forwards move on: a fixed cost, and one for each row beyond those for free."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        free_rows: int,
        room: int = 1000,
        row_s: float = 0.01,
        compile_s: float = 0.0,
    ) -> None:
        self._free_rows = free_rows
        self._room = room
        self._row_s = row_s
        self._compile_s = compile_s
        self._compiled: set[int] = set()
        self._now = 0.0
        self.run_count = 0
        monkeypatch.setattr(time, "perf_counter", lambda: self._now)

    def run(self, calls: int) -> None:
        """Run a forward of two rows a call."""
        if calls * 2 > self._room:
            raise torch.OutOfMemoryError
        self._now += max(calls * 2, self._free_rows) * self._row_s
        if calls not in self._compiled:
            self._compiled.add(calls)
            self._now += self._compile_s
        self.run_count += 1


def test_a_device_that_is_saturated_by_one_call_is_not_given_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = measure(FakeDevice(monkeypatch, free_rows=2).run, rows_per_call=2)
    assert set(profile) == {2, 4}
    assert choose_cap(profile) == 2


def test_a_wide_device_is_given_all_rows_that_are_for_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = measure(FakeDevice(monkeypatch, free_rows=8).run, rows_per_call=2)
    assert set(profile) == {2, 4, 8, 16}
    assert choose_cap(profile) == 8


def test_out_of_memory_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = measure(FakeDevice(monkeypatch, free_rows=100, room=5).run, rows_per_call=2)
    assert set(profile) == {2, 4}
    assert choose_cap(profile) == 4


def test_a_slow_device_is_held_up_by_two_forwards_only(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(monkeypatch, free_rows=2, row_s=10)
    assert measure(device.run, rows_per_call=2) == {2: 20}
    assert device.run_count == 2


def test_the_first_forwards_of_a_compiled_model_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = FakeDevice(monkeypatch, free_rows=8, compile_s=60)
    assert choose_cap(measure(device.run, rows_per_call=2)) == 8


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
