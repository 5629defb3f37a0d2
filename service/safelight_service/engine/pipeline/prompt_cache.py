"""Memo: results of expensive functions, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from torch import Tensor


class Memo:
    """Keeps results of up to `max_bytes` of tensors; evicts the least recently used.

    Use it in one thread.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._results: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the result of a key; call `make` if it is not kept."""
        if key in self._results:
            self._results.move_to_end(key)
            return self._results[key][0]
        result = make()
        size = count_bytes(result)
        if size <= self._max_bytes:
            self._results[key] = result, size
            self.size_bytes += size
        while self.size_bytes > self._max_bytes:
            _, (_, size) = self._results.popitem(last=False)
            self.size_bytes -= size
        return result


def count_bytes(value: Any) -> int:
    """Return the bytes of all tensors in a nested value."""
    match value:
        case Tensor() if hasattr(value, "__tensor_flatten__"):  # quantized, a wrapper of others
            return sum(count_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
        case Tensor():
            return value.nbytes
        case Mapping():
            return sum(count_bytes(item) for item in value.values())
        case list() | tuple():
            return sum(count_bytes(item) for item in value)
    return 0
