"""Crossings: copies between the host and a device, observed without a device."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Crossings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the shapes of copies between devices. Use it with "meta", where reads fail."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        if operator in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            tensors = [x for x in tree_leaves((args, result)) if isinstance(x, torch.Tensor)]
            if len({tensor.device for tensor in tensors}) > 1:
                self.shapes.append(result.shape)
        return result
