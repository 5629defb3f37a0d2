"""Memo: results of expensive calls, as many as fit, the least recently used forgotten first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from torch import Tensor


class Memo:
    """Remembers results that hold tensors, up to `max_bytes` in all; belongs to one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._results: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the result of that key, made now unless it is remembered."""
        if key in self._results:
            self._results.move_to_end(key)
            return self._results[key][0]
        result = make()
        size = count_bytes(result)
        if size <= self._max_bytes:
            self._results[key] = result, size
            self.size_bytes += size
        while self.size_bytes > self._max_bytes:
            _, (_, forgotten) = self._results.popitem(last=False)
            self.size_bytes -= forgotten
        return result


def count_bytes(value: Any) -> int:
    """Count the bytes of all tensors in a value, however they are nested."""
    match value:
        case Tensor() if hasattr(value, "__tensor_flatten__"):  # quantized: made of others
            return sum(count_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
        case Tensor():
            return value.nbytes
        case Mapping():
            return sum(count_bytes(item) for item in value.values())
        case list() | tuple():
            return sum(count_bytes(item) for item in value)
    return 0
