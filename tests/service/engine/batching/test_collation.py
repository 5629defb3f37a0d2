"""Merging and splitting, argument by argument."""

from typing import Any

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch.testing._internal.two_tensor import TwoTensor

from safelight_service.engine.batching.collation import (
    EQUAL_ITEMS,
    ITEMS,
    ROWS,
    ROWS_BY_NAME,
    SAME,
    TEXT,
    TIMESTEP,
    Collator,
    Merger,
    fingerprint,
    rows,
    split,
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


def test_fingerprints_see_content_layout_and_changes_in_place() -> None:
    tensor = torch.zeros(2, 3)
    before = fingerprint(tensor)
    assert before == fingerprint(torch.zeros(2, 3))
    assert before != fingerprint(torch.zeros(3, 2))
    assert before != fingerprint(torch.zeros(2, 3, dtype=torch.bfloat16))
    tensor[0, 0] = 1
    assert fingerprint(tensor) != before
    assert fingerprint({"a": [1, None]}) == fingerprint({"a": (1, None)})


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: Transformer2DModelOutput(sample=x)])
def test_outputs_are_split_as_they_were_returned(wrap: Any) -> None:
    first, second = split(wrap(torch.arange(6).view(3, 2)), (1, 2))
    assert type(first) is type(wrap(torch.zeros(1)))
    assert first[0].tolist() == [[0, 1]]
    assert second[0].tolist() == [[2, 3], [4, 5]]


def test_lists_of_outputs_are_split_by_rows() -> None:
    assert split((["a", "b", "c"],), (1, 2)) == [(["a"],), (["b", "c"],)]


def test_an_output_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="a denoiser returned object"):
        split(object(), (1, 1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: (list(x.split(1)),),
        lambda x: Transformer2DModelOutput(sample=x),
    ],
)
@pytest.mark.parametrize("call_count", [1, 2])
def test_forwards_run_in_inference_mode_but_schedulers_may_write_into_what_they_return(
    wrap: Any, call_count: int
) -> None:
    def forward(tensor: torch.Tensor) -> Any:
        assert torch.is_inference_mode_enabled()
        return wrap(tensor + 1)

    calls = [{"tensor": torch.zeros(1, 2)}] * call_count
    results = Merger(torch.nn.Identity(), {"tensor": ROWS}).run(forward, calls)
    assert len(results) == call_count
    for result in results:
        while not isinstance(result, torch.Tensor):
            result = result[0]
        assert result.add_(1).tolist() == [[2, 2]]


def test_quantized_denoisers_run_without_gradients_but_not_in_inference_mode() -> None:
    """With some versions of torch, tensors of torchao's classes fail in it."""
    modes: list[tuple[bool, bool]] = []
    layer = torch.nn.Linear(2, 2)
    layer.register_forward_pre_hook(
        lambda *_: modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
    )
    calls = [{"input": torch.zeros(1, 2)}]
    Merger(layer, None).run(layer, calls)
    weight = layer.weight.detach()
    quantized = TwoTensor(weight, weight.clone())  # type: ignore[no-untyped-call]
    layer.weight = torch.nn.Parameter(quantized, requires_grad=False)
    Merger(layer, None).run(layer, calls)
    assert modes == [(True, False), (False, False)]


def test_without_a_rule_no_two_calls_have_the_same_key() -> None:
    merger = Merger(torch.nn.Identity(), None)
    arguments = merger.bind((torch.zeros(1),), {})
    assert merger.key(arguments) != merger.key(arguments)
    assert merger.count_rows(arguments) == 1


class Denoiser(torch.nn.Module):
    def forward(self, sample: Any, timestep: Any, *, mask: Any = None, **more: Any) -> Any:
        return sample


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1, 2), {}, {"sample": 1, "timestep": 2}),
        ((1,), {"timestep": 2, "mask": 3}, {"sample": 1, "timestep": 2, "mask": 3}),
        ((), {"timestep": 2, "sample": 1}, {"sample": 1, "timestep": 2}),
        ((1, 2), {"other": 3}, {"sample": 1, "timestep": 2, "more": {"other": 3}}),
    ],
)
def test_arguments_are_named_however_they_are_handed_over(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert Merger(Denoiser(), None).bind(args, kwargs) == expected


@pytest.mark.parametrize(("args", "kwargs"), [((1, 2), {"sample": 3}), ((1, 2, 3), {})])
def test_arguments_that_a_denoiser_does_not_take_are_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        Merger(Denoiser(), None).bind(args, kwargs)
