"""UniPC: its two updates, with coefficients that are worked out once and on the host.

diffusers' scheduler solves a small linear system at each step, on the device of the latents: some
forty kernels of one number each, and on CUDA a wait for the solver's verdict. The numbers depend on
the noise levels alone, which are known beforehand and are the same for all images of a schedule.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor

_MOST_REMEMBERED = 4096
"""Updates; a schedule has two for each step."""


@dataclass(frozen=True, slots=True)
class _Coefficients:
    """Of an update from one noise level to the next; numbers on the host, () each.

    In the terms of the paper (Zhao et al. 2023, arXiv:2302.04867), for data prediction.
    """

    kept: Tensor
    """sigma_t / sigma_s: how much of the sample stays."""
    first: Tensor
    """alpha_t (e^-h - 1): of the model's output at the start."""
    higher: Tensor
    """alpha_t B(h): of the differences between outputs."""
    ratios: tuple[Tensor, ...]
    """r_k: how far the earlier outputs lie from the start, in steps of this size."""
    rhos: Tensor
    """The differences' weights, one for each of `ratios`; the corrector's own follows them.

    On the device of the latents, and in their precision.
    """


class UniPcUpdates:
    """Makes the updates of UniPC schedulers; remembers coefficients across them."""

    def __init__(self) -> None:
        self._known: LRUCache[Hashable, _Coefficients] = LRUCache(_MOST_REMEMBERED)

    def attach(self, scheduler: Any) -> None:
        """Have a UniPCMultistepScheduler make its updates here; the results stay the same."""

        def predict(model_output: Tensor, *, sample: Tensor, order: int) -> Tensor:
            return self._predict(scheduler, sample, order)

        def correct(
            this_model_output: Tensor, *, last_sample: Tensor, this_sample: Tensor, order: int
        ) -> Tensor:
            return self._correct(scheduler, this_model_output, last_sample, order)

        if scheduler.solver_p is None:  # else another scheduler predicts
            scheduler.multistep_uni_p_bh_update = predict
        scheduler.multistep_uni_c_bh_update = correct

    def _predict(self, scheduler: Any, sample: Tensor, order: int) -> Tensor:
        """Go from the sample at the current step to the next (UniP)."""
        outputs = scheduler.model_outputs
        known = self._look_up(scheduler, scheduler.step_index, order, sample, corrects=False)
        moved: Tensor = known.kept * sample - known.first * outputs[-1]
        differences = _differences(outputs, known.ratios)
        weighted: Tensor | int = 0
        if differences is not None:
            weighted = torch.einsum("k,bkc...->bc...", known.rhos, differences)
        moved = moved - known.higher * weighted
        return moved.to(sample.dtype)

    def _correct(
        self, scheduler: Any, model_output: Tensor, last_sample: Tensor, order: int
    ) -> Tensor:
        """Make the step before once more, now that its end has an output, too (UniC)."""
        outputs = scheduler.model_outputs
        start = scheduler.step_index - 1
        known = self._look_up(scheduler, start, order, last_sample, corrects=True)
        moved: Tensor = known.kept * last_sample - known.first * outputs[-1]
        differences = _differences(outputs, known.ratios)
        weighted: Tensor | int = 0
        if differences is not None:
            weighted = torch.einsum("k,bkc...->bc...", known.rhos[:-1], differences)
        last = known.rhos[-1] * (model_output - outputs[-1])
        moved = moved - known.higher * (weighted + last)
        return moved.to(last_sample.dtype)

    def _look_up(
        self, scheduler: Any, start: int, order: int, sample: Tensor, *, corrects: bool
    ) -> _Coefficients:
        levels = scheduler.sigmas[start - order + 1 : start + 2]
        key = (
            tuple(levels.tolist()),
            corrects,
            scheduler.predict_x0,
            scheduler.config.solver_type,
            scheduler.config.use_flow_sigmas,
            sample.device,
            sample.dtype,
        )
        if key not in self._known:
            self._known[key] = _work_out(scheduler, levels, sample, corrects=corrects)
        return self._known[key]


def _differences(outputs: list[Tensor], ratios: tuple[Tensor, ...]) -> Tensor | None:
    """Return those between the earlier outputs and the last: (batch, len(ratios), ...)."""
    if not ratios:
        return None
    return torch.stack(
        [
            (earlier - outputs[-1]) / ratio
            for earlier, ratio in zip(outputs[-2 : -2 - len(ratios) : -1], ratios, strict=True)
        ],
        dim=1,
    )


def _work_out(scheduler: Any, levels: Tensor, sample: Tensor, *, corrects: bool) -> _Coefficients:
    """Work out an update from the noise levels (order + 1,) up to its end.

    Operation by operation as diffusers does, so that not a bit differs.
    """
    order = len(levels) - 1
    *earlier, (alpha_s, sigma_s), (alpha_t, sigma_t) = (
        scheduler._sigma_to_alpha_sigma_t(level) for level in levels
    )
    lambda_s = torch.log(alpha_s) - torch.log(sigma_s)
    h = torch.log(alpha_t) - torch.log(sigma_t) - lambda_s
    ratios = tuple(
        (torch.log(alpha) - torch.log(sigma) - lambda_s) / h for alpha, sigma in reversed(earlier)
    )
    hh = -h if scheduler.predict_x0 else h
    h_phi_1 = torch.expm1(hh)
    b_h = hh if scheduler.config.solver_type == "bh1" else torch.expm1(hh)
    if scheduler.predict_x0:
        kept, scale = sigma_t / sigma_s, alpha_t
    else:
        kept, scale = alpha_t / alpha_s, sigma_t
    rhos = _solve(ratios, order, hh, h_phi_1, b_h, corrects=corrects)
    return _Coefficients(
        kept, scale * h_phi_1, scale * b_h, ratios, rhos.to(sample.device).to(sample.dtype)
    )


def _solve(
    ratios: tuple[Tensor, ...],
    order: int,
    hh: Tensor,
    h_phi_1: Tensor,
    b_h: Tensor,
    *,
    corrects: bool,
) -> Tensor:
    """Solve for the weights of the differences."""
    unknowns = order if corrects else order - 1
    if unknowns <= 1:
        return torch.full((unknowns,), 0.5)  # the paper's simplification
    points = torch.stack([*ratios, torch.ones(())])
    rows, right = [], []
    h_phi_k, factorial = h_phi_1 / hh - 1, 1
    for power in range(order):
        rows.append(torch.pow(points, power))
        right.append(h_phi_k * factorial / b_h)
        factorial *= power + 2
        h_phi_k = h_phi_k / hh - 1 / factorial
    matrix, values = torch.stack(rows), torch.stack(right)
    solved: Tensor = torch.linalg.solve(matrix[:unknowns, :unknowns], values[:unknowns])
    return solved
