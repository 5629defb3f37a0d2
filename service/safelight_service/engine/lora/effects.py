"""Effects: what an adapter adds to the output of one layer, by its kind."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear

Addition: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Returns what is added to some rows, given their inputs and outputs of the layer itself."""


class Factors(NamedTuple):
    """LoRA: a layer's output grows by `up(down(input))`.

    Linear: `down` (rank, inputs), `up` (outputs, rank). Convolution: `down` (rank, inputs, height,
    width), `up` (outputs, rank, 1, 1).
    """

    down: Tensor
    up: Tensor

    def multiply(self, layer: Any, given: Tensor) -> Tensor:
        """Return the growth of the output for an input."""
        if self.down.ndim == 2:
            return linear(linear(given, self.down), self.up)
        low = conv2d(given, self.down, None, layer.stride, layer.padding, layer.dilation)
        return conv2d(low, self.up)


class Dora(NamedTuple):
    """DoRA: factors that change the directions of a layer's weights, whose lengths are given.

    `magnitude` (outputs): length of the weights of each output.
    """

    down: Tensor
    up: Tensor
    magnitude: Tensor

    def prepare(self, layer: Any, scale: float) -> Addition:
        """Return the effect on a layer at a scale of its factors."""
        factors = Factors(self.down, self.up * scale)
        weight = layer.weight.to(self.down.device)
        change = (factors.up.flatten(1) @ self.down.flatten(1)).view_as(weight)
        lengths = (weight + change).flatten(1).float().norm(dim=1).clamp_min(1e-12)
        sides = (1,) * (weight.ndim - 2)
        gain = (self.magnitude.float() / lengths).to(weight.dtype).view(-1, *sides)
        bias = None if layer.bias is None else layer.bias.to(gain.device).view(-1, *sides)

        def add(given: Tensor, output: Tensor) -> Tensor:
            plain = output if bias is None else output - bias
            return torch.addcmul((gain - 1) * plain, gain, factors.multiply(layer, given))

        return add


class Kronecker(NamedTuple):
    """LoKr: the weights of a layer grow by the Kronecker product of two matrices.

    Linear: `left` (a, b), `right` (c, d), for a * c outputs and b * d inputs. Convolution: `right`
    (c, d, height, width).
    """

    left: Tensor
    right: Tensor

    def prepare(self, layer: Any, scale: float) -> Addition:
        """Return the effect on a layer at a scale."""
        left, right = self.left * scale, self.right
        count, size = left.shape[1], right.shape[1]

        def multiply(given: Tensor, _: Tensor) -> Tensor:
            pieces = given.reshape(*given.shape[:-1], count, size)
            return torch.matmul(left, linear(pieces, right)).flatten(-2)

        def convolve(given: Tensor, _: Tensor) -> Tensor:
            pieces = given.reshape(-1, size, *given.shape[2:])
            high = conv2d(pieces, right, None, layer.stride, layer.padding, layer.dilation)
            joined = torch.matmul(left, high.reshape(len(given), count, -1))
            return joined.reshape(len(given), -1, *high.shape[2:])

        return multiply if right.ndim == 2 else convolve


Effect: TypeAlias = Factors | Dora | Kronecker
