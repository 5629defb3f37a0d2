"""Merger: runs the forwards of several generations as one, and splits its output again."""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from safelight_service.engine.batching.collation import SAME, Arguments, CollationRule


class Merger:
    """Merges the forwards of one denoiser by its family's rule; never, if there is none."""

    def __init__(self, denoiser: Any, rule: CollationRule | None) -> None:
        self._signature = inspect.signature(denoiser.forward)
        parameters = self._signature.parameters.values()
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._positional = [each.name for each in parameters if each.kind in by_position]
        self._names = frozenset(each.name for each in parameters if each.kind in by_name)
        self._rule = rule
        # Quantized weights are tensors of a class of their own, and these fail in inference mode
        # with some versions of torch (pytorch#170419).
        is_quantized = any(map(is_traceable_wrapper_subclass, denoiser.parameters()))
        self._grad_mode = torch.no_grad if is_quantized else torch.inference_mode

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Name the arguments of a call."""
        if self._names.issuperset(kwargs):  # as pipelines call: binding by hand costs a tenth
            named = {**dict(zip(self._positional, args, strict=False)), **kwargs}
            if len(named) == len(args) + len(kwargs):
                return named
        return self._signature.bind(*args, **kwargs).arguments

    def key(self, arguments: Arguments) -> Hashable:
        """Return what calls must have in common to be merged."""
        if self._rule is None:
            return object()
        return frozenset(
            (name, self._rule.get(name, SAME).key(value)) for name, value in arguments.items()
        )

    def count_rows(self, arguments: Arguments) -> int:
        """Count the rows of a call: a guided image may have two."""
        if self._rule is None:
            return 1
        return len(arguments[next(iter(self._rule))])

    def run(self, forward: Callable[..., Any], calls: Sequence[Arguments]) -> list[Any]:
        """Run calls of equal keys as one forward, and return what each alone would."""
        if len(calls) == 1:
            return [self._infer(forward, calls[0])]
        assert self._rule is not None
        counts = [self.count_rows(call) for call in calls]
        merged = {name: self._rule.get(name, SAME).merge(name, calls, counts) for name in calls[0]}
        return split(self._infer(forward, merged), counts)

    def _infer(self, forward: Callable[..., Any], arguments: Arguments) -> Any:
        """Run a forward in inference mode, which spares its operations what no_grad still does.

        What it returns is ordinary again: outside, inference tensors cannot be written into, as
        schedulers do.
        """
        with self._grad_mode():
            output = forward(**arguments)
        return _copy(output)


def _copy(output: Any) -> Any:
    match output:
        case Tensor():
            return output.clone()
        case list() | tuple():
            return type(output)(map(_copy, output))
        case Mapping():  # a ModelOutput
            return type(output)(**{name: _copy(item) for name, item in output.items()})
    return output


def split(output: Any, counts: Sequence[int]) -> list[Any]:
    """Split a denoiser's output into those of its calls, by their rows."""
    match output:
        case Tensor():
            return list(torch.split(output, list(counts)))
        case list():
            ends = [sum(counts[: number + 1]) for number in range(len(counts))]
            return [output[end - count : end] for end, count in zip(ends, counts, strict=True)]
        case tuple():
            return list(zip(*(split(item, counts) for item in output), strict=True))
        case Mapping():  # a ModelOutput
            parts = {name: split(item, counts) for name, item in output.items()}
            return [
                type(output)(**{name: part[number] for name, part in parts.items()})
                for number in range(len(counts))
            ]
    raise TypeError(f"a denoiser returned {type(output).__name__}, which cannot be split")
