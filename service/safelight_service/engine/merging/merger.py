"""Merger: runs the forwards of several generations as one, and splits the output."""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from safelight_service.engine.merging.collation import SAME, Arguments, CollationRule

GradMode = type[torch.no_grad] | type[torch.inference_mode]
"""A mode without gradients."""


class Merger:
    """Merges the forwards of one denoiser by its family's rule; without one, merges nothing."""

    def __init__(self, denoiser: Any, rule: CollationRule | None) -> None:
        self._signature = inspect.signature(denoiser.forward)
        parameters = self._signature.parameters.values()
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._positional = [each.name for each in parameters if each.kind in by_position]
        self._names = frozenset(each.name for each in parameters if each.kind in by_name)
        self._rule = rule
        self._grad_mode = choose_grad_mode(denoiser)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Bind the arguments of a forward to their names."""
        if self._names.issuperset(kwargs):  # the usual case, ten times as fast as bind
            named = {**dict(zip(self._positional, args, strict=False)), **kwargs}
            if len(named) == len(args) + len(kwargs):
                return named
        return self._signature.bind(*args, **kwargs).arguments

    def key(self, arguments: Arguments) -> Hashable:
        """Return the key of a forward; forwards with equal keys can be merged."""
        if self._rule is None:
            return object()
        return frozenset(
            (name, self._rule.get(name, SAME).key(value)) for name, value in arguments.items()
        )

    def count_rows(self, arguments: Arguments) -> int:
        """Return the rows of a forward; a guided image may have two."""
        if self._rule is None:
            return 1
        return len(arguments[next(iter(self._rule))])

    def run(self, forward: Callable[..., Any], members: Sequence[Arguments]) -> list[Any]:
        """Merge forwards with equal keys, run them as one, and return the output of each."""
        if len(members) == 1:
            return [self._infer(forward, members[0])]
        assert self._rule is not None
        counts = [self.count_rows(arguments) for arguments in members]
        merged = {
            name: self._rule.get(name, SAME).merge(name, members, counts) for name in members[0]
        }
        return split(self._infer(forward, merged), counts)

    def _infer(self, forward: Callable[..., Any], arguments: Arguments) -> Any:
        """Run a forward in inference mode, which has less overhead than no_grad.

        Returns a copy of the output in ordinary tensors: schedulers write into it, which inference
        tensors do not allow.
        """
        with self._grad_mode():
            output = forward(**arguments)
        return _copy(output)


def choose_grad_mode(denoiser: Any) -> GradMode:
    """Return the mode for all forwards of a denoiser.

    Quantized weights are tensor subclasses, which fail in inference mode with some versions of
    torch (pytorch#170419).
    """
    is_quantized = any(map(is_traceable_wrapper_subclass, denoiser.parameters()))
    return torch.no_grad if is_quantized else torch.inference_mode


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
    """Split a denoiser's output into parts with these numbers of rows.

    Raises:
        TypeError: the output is of a type that cannot be split.
    """
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
