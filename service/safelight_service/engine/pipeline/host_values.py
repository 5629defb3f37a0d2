"""HostValues: host copies of small device tensors, so that reading them does not block.

Pipelines and schedulers build small tensors on the host (token ids, masks, timesteps, positions),
copy them to the device, and read some of them again: to index, to branch, to split. Each read and
each ordinary copy would wait for all queued work of the device. The function mode `HostValues`
avoids these waits in unmodified code. Copies go through pinned memory. Small tensors keep
their host values, and functions of such tensors are computed on the host as well.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from safelight_service.engine import hardware
from safelight_service.engine.sampling.noise import Noise

_MOST_ELEMENTS = 1 << 16
"""Maximum elements of a tensor with host values: enough for positions of a 2048 px picture."""

_ATTRIBUTE = "_safelight_host_values"


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


_READS = _names(
    "__bool__ __contains__ __float__ __index__ __int__ allclose cpu equal is_nonzero item tolist"
)
"""Functions whose results are on the host."""

_MADE_ON_HOST = _names("argwhere linalg_solve masked_select nonzero unique unique_consecutive")
"""Functions that wait for the device, for the shape of their result or for errors."""

_DERIVED = _names(
    """
    __add__ __and__ __eq__ __floordiv__ __ge__ __gt__ __invert__ __le__ __lt__ __mod__ __mul__
    __ne__ __neg__ __or__ __pow__ __radd__ __rdiv__ __rmul__ __rpow__ __rsub__ __rtruediv__ __sub__
    __truediv__ __xor__ abs add all amax amin any argmax argmin bfloat16 bool broadcast_to cat ceil
    chunk clamp clone concat contiguous cos cumsum detach diff div double eq exp expand expand_as
    expm1 flatten flip float floor ge gt half int le lerp log logical_and logical_not logical_or
    long lt max min mul narrow ne neg new_full new_ones new_zeros ones_like outer pad permute pow
    reciprocal repeat repeat_interleave reshape roll round rsqrt select sigmoid sin split sqrt
    square squeeze stack sub sum swapaxes t tanh tile transpose tril triu type type_as unbind
    unsqueeze view view_as where zeros_like
    """
)
"""Pure functions, which neither draw random numbers nor change their arguments."""

_FACTORIES = _names("arange full linspace ones zeros")
_FROM_DATA = _names("as_tensor asarray tensor")
_RANDOM = _names(
    "bernoulli bernoulli_ cauchy_ exponential_ geometric_ log_normal_ multinomial normal normal_ "
    "rand rand_like randint randint_like randn_like random_ randperm uniform_"
)


def known_values(tensor: Tensor) -> Tensor | None:
    """Return the host values of a device tensor, if they are known."""
    held = getattr(tensor, _ATTRIBUTE, None)
    if held is None or held[0] != tensor._version:  # written to since
        return None
    values: Tensor = held[1]
    return values


class HostValues(TorchFunctionMode):
    """Function mode in which code does not wait for an asynchronous device."""

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self._noise = noise
        own: dict[str, Callable[[Any, Sequence[Any], dict[str, Any]], Any]] = {
            "to": self._to,
            "randn": self._randn,
            "__iter__": self._iterate,
            "__getitem__": self._index,
        }
        self._handlers = (
            dict.fromkeys(_RANDOM, self._draw_otherwise)
            | dict.fromkeys(_FACTORIES, self._make)
            | dict.fromkeys(_FROM_DATA, self._make_from_data)
            | dict.fromkeys(_READS | _MADE_ON_HOST | _DERIVED, self._derive)
            | own
        )

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, without a wait if possible."""
        handler = self._handlers.get(getattr(func, "__name__", ""))
        if handler is None:
            return func(*args, **(kwargs or {}))
        return handler(func, args, dict(kwargs or {}))

    def _to(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        source: Tensor = args[0]
        device, dtype = _find_target(source, args[1:], kwargs)
        is_here, is_there = source.device.type == "cpu", device.type == "cpu"
        if is_here and not is_there and not isinstance(source, Parameter):
            # Weights, which are moved where a model is offloaded, need not be read again.
            return _move(source.to(dtype), device)
        values = None if is_here else known_values(source)
        if values is None:
            return func(*args, **kwargs)
        if is_there:
            return values.to(dtype, copy=True)
        result = func(*args, **kwargs)
        _remember(result, values.to(dtype))
        return result

    def _derive(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a function on the host as well, if all its arguments have host values."""
        leaves, structure = pytree.tree_flatten((args, kwargs))
        device = _replace_known(leaves)
        if device is None:
            return func(*args, **kwargs)
        host_args, host_kwargs = pytree.tree_unflatten(leaves, structure)
        host_kwargs.pop("device", None)
        values = func(*host_args, **host_kwargs)
        name = func.__name__
        if name in _READS:
            return values.clone() if isinstance(values, Tensor) else values
        if name in _MADE_ON_HOST:
            return pytree.tree_map_only(Tensor, lambda each: _move(each, device), values)
        result = func(*args, **kwargs)
        for made, value in zip(pytree.tree_leaves(result), pytree.tree_leaves(values), strict=True):
            _remember(made, value)
        return result

    def _make(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        args = _read_known(args)
        result = func(*args, **kwargs)
        if _is_small_on_device(result):
            _remember(result, func(*args, **{**kwargs, "device": "cpu"}))
        return result

    def _make_from_data(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        device = kwargs.pop("device", None)
        if device is None:
            # Data that lies on a device stays there.
            device = next((each.device for each in _device_tensors(args)), None)
        is_there = device is not None and torch.device(device).type != "cpu"
        if is_there and isinstance(args[0], Tensor) and args[0].device.type != "cpu":
            return func(*args, **kwargs, device=device)
        known = _read_known(args)
        if not is_there or _device_tensors(known):
            return func(*known, **kwargs, device=device)
        return _move(func(*known, **kwargs), torch.device(device))

    def _index(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Index a tensor by host values; masks become integer indices."""
        source, index = args
        indices = index if isinstance(index, tuple) else (index,)
        host_indices = [_on_host(each) for each in indices]
        if any(
            values is None and given is not None
            for given, values in zip(indices, host_indices, strict=True)
        ):
            return func(source, index)  # one of them has no host values
        if source.device.type == "cpu":
            return func(source, _as_given(host_indices, index))
        places = [
            place
            for given, values in zip(indices, host_indices, strict=True)
            for place in _find_places(given, values, source.device)
        ]
        result = func(source, _as_given(places, index))
        values = known_values(source)
        if values is not None:
            _remember(result, func(values, _as_given(host_indices, index)))
        return result

    def _iterate(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if known_values(args[0]) is None:
            return func(*args, **kwargs)
        return iter(self._derive(Tensor.unbind, args, {}))

    def _randn(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("generator") is not self._noise.generator:
            return func(*args, **kwargs)
        size = kwargs.get("size", args)
        if len(args) == 1 and not isinstance(args[0], int):
            [size] = args
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        return self._noise.draw(torch.Size(size), dtype)

    def _draw_otherwise(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("generator") is self._noise.generator:
            self._noise.rewind()
        return func(*args, **kwargs)


def _move(source: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to a device without blocking."""
    pinned = hardware.pin(source)
    moved = pinned.to(device, non_blocking=True)
    _remember(moved, pinned)
    return moved


def _remember(tensor: Any, values: Any) -> None:
    if _is_small_on_device(tensor):
        setattr(tensor, _ATTRIBUTE, (tensor._version, values))


def _is_small_on_device(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.device.type != "cpu"
        and value.numel() <= _MOST_ELEMENTS
        and not value.is_inference()
    )


def _find_target(
    source: Tensor, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[torch.device, torch.dtype]:
    """Return the device and the data type of `source.to(*args, **kwargs)`."""
    if args and isinstance(args[0], Tensor):
        return args[0].device, args[0].dtype
    named = {name: value for name, value in kwargs.items() if name in ("device", "dtype")}
    device, dtype, _, _ = torch._C._nn._parse_to(*args[:2], **named)
    return device or source.device, dtype or source.dtype


def _replace_known(leaves: list[Any]) -> torch.device | None:
    """Replace device tensors by their host values; None if any is unknown or there are none."""
    device = None
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.device.type != "cpu":
            device = leaf.device
            leaves[place] = known_values(leaf)
            if leaves[place] is None:
                return None
    return device


def _device_tensors(values: Any) -> list[Tensor]:
    """Return the tensors on a device among values, however they are nested."""
    leaves = pytree.tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type != "cpu"]


def _read_known(values: Sequence[Any]) -> Sequence[Any]:
    """Return values with device tensors replaced by host values; unchanged if any is unknown."""
    leaves, structure = pytree.tree_flatten(list(values))
    if _replace_known(leaves) is None:
        return values
    read: list[Any] = pytree.tree_unflatten(leaves, structure)
    return read


def _on_host(index: Any) -> Any:
    """Return an index with its host values; None if a tensor has none."""
    if isinstance(index, Tensor) and index.device.type != "cpu":
        return known_values(index)
    return index


def _find_places(given: Any, values: Any, device: torch.device) -> Sequence[Any]:
    """Convert an index with host values to indices that the device takes without a wait."""
    if not isinstance(values, Tensor) or values.ndim == 0:
        return [values]
    if values.dtype == torch.bool:
        return [_move(place, device) for place in values.nonzero(as_tuple=True)]
    return [given if given.device == device else _move(values, device)]


def _as_given(indices: Sequence[Any], given: Any) -> Any:
    """Return indices in the form of the given ones: a single index, or a tuple."""
    return tuple(indices) if isinstance(given, tuple) or len(indices) > 1 else indices[0]
