"""Collators: merging and padding of each kind of argument."""

from typing import Any

import pytest
import torch

from safelight_service.engine.merging.collation import (
    EQUAL_ITEMS,
    ITEMS,
    ROWS,
    ROWS_BY_NAME,
    SAME,
    TEXT,
    TIMESTEP,
    Collator,
    rows,
    text_mask,
)


def merge(treatment: Collator, *values: Any, counts: tuple[int, ...] = (1, 2)) -> Any:
    return treatment.merge("it", [{"it": value} for value in values], counts)


def test_timesteps_of_any_kind_become_one_for_each_row() -> None:
    merged = merge(TIMESTEP, 999, torch.tensor(3))
    assert merged.tolist() == [999, 3, 3]
    merged = merge(TIMESTEP, torch.tensor([0.5]), torch.tensor([1, 2]))
    assert (merged.tolist(), merged.dtype) == ([0.5, 1, 2], torch.float32)


def pad(treatment: Collator, value: Any, row_count: int, width: int) -> Any:
    assert treatment.pad is not None
    return treatment.pad(value, row_count, width)


def test_the_last_row_is_repeated_as_padding() -> None:
    value = torch.arange(6).view(1, 2, 3)
    assert pad(rows(dim=1), value, 2, 4).tolist() == [[[0, 1, 2], [3, 4, 5], [3, 4, 5], [3, 4, 5]]]
    assert pad(ROWS, value, 1, 3).shape == (3, 2, 3)
    assert pad(ROWS, value, 1, 1) is value
    assert pad(ROWS, None, 1, 3) is None
    assert pad(ROWS_BY_NAME, None, 1, 3) is None
    padded = pad(ROWS_BY_NAME, {"a": torch.ones(1, 2), "b": None}, 1, 3)
    assert (padded["a"].shape, padded["b"]) == ((3, 2), None)
    assert pad(SAME, value, 1, 3) is value


def test_timesteps_of_any_kind_are_padded_as_floats() -> None:
    assert pad(TIMESTEP, 7, 2, 3).tolist() == [7, 7, 7]
    assert pad(TIMESTEP, torch.tensor([1, 2]), 2, 3).tolist() == [1, 2, 2]
    assert pad(TIMESTEP, torch.tensor(7), 1, 2).dtype == torch.float32
    assert pad(TIMESTEP, torch.tensor([0.5], dtype=torch.bfloat16), 1, 2).dtype == torch.bfloat16


@pytest.mark.parametrize("treatment", [TEXT, ITEMS, EQUAL_ITEMS, text_mask("text")])
def test_what_has_no_fixed_shape_is_not_padded(treatment: Collator) -> None:
    assert treatment.pad is None


def test_rows_are_concatenated_where_the_rule_says() -> None:
    first, second = torch.zeros(3, 1, 4), torch.ones(3, 2, 4)
    assert merge(rows(dim=1), first, second).shape == (3, 3, 4)
    assert rows(dim=1).key(first) == rows(dim=1).key(second)
    assert ROWS.key(first) != ROWS.key(second)
    assert merge(ROWS, None, None) is None
    assert ROWS.key(None) != ROWS.key(first)


def test_rows_in_a_dictionary_are_merged_by_name() -> None:
    merged = merge(
        ROWS_BY_NAME, {"a": torch.zeros(1, 2), "b": None}, {"a": torch.ones(2, 2), "b": None}
    )
    assert merged["a"].shape == (3, 2)
    assert merged["b"] is None
    assert ROWS_BY_NAME.key({"a": None}) != ROWS_BY_NAME.key({"b": None})
    assert merge(ROWS_BY_NAME, None, None) is None


def test_lists_are_joined_and_equal_ones_must_be_equal() -> None:
    assert merge(ITEMS, [1], [2, 3]) == [1, 2, 3]
    assert EQUAL_ITEMS.key([(1, 8, 8)]) == EQUAL_ITEMS.key([(1, 8, 8)] * 2)
    assert EQUAL_ITEMS.key([(1, 8, 8)]) != EQUAL_ITEMS.key([(1, 4, 16)])


def test_shorter_texts_are_filled_up_and_what_is_filled_is_masked() -> None:
    short, long = torch.ones(1, 2, 3), torch.ones(2, 4, 3)
    calls = [{"text": short, "mask": None}, {"text": long, "mask": None}]
    text = TEXT.merge("text", calls, (1, 2))
    mask = text_mask("text").merge("mask", calls, (1, 2))
    assert text[0].sum(-1).tolist() == [3, 3, 0, 0]
    assert mask.tolist() == [[True, True, False, False], [True] * 4, [True] * 4]


def test_texts_of_one_length_need_no_mask_unless_one_has_it() -> None:
    texts = [torch.ones(1, 2, 3)] * 2
    calls: list[dict[str, Any]] = [{"text": text, "mask": None} for text in texts]
    assert text_mask("text").merge("mask", calls, (1, 1)) is None
    calls[1]["mask"] = torch.tensor([[1, 0]])
    mask = text_mask("text").merge("mask", calls, (1, 1))
    assert mask.tolist() == [[True, True], [True, False]]
