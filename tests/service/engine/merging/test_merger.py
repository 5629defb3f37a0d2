"""Merged forwards: their arguments, their modes and the parts of their output."""

from typing import Any

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch.testing._internal.two_tensor import TwoTensor

from safelight_service.engine.merging.collation import ROWS
from safelight_service.engine.merging.merger import Merger, split


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
    """In some versions of torch, torchao's tensors fail in inference mode."""
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
