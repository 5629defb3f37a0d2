"""UniPcUpdates: both updates of UniPC, with coefficients computed once on the host.

diffusers' scheduler solves a small linear system at each step, on the device of the latents: some
forty tiny kernels, and on CUDA a wait for the solver's status. The coefficients depend only on the
noise levels, which are known beforehand and equal for all images of a schedule.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor

_MOST_REMEMBERED = 4096
"""Most kept coefficients; a schedule has two updates for each step."""


@dataclass(frozen=True, slots=True)
class _Coefficients:
    """Coefficients of an update from noise level s to t; scalars () on the host, but for `rhos`.

    Notation of the paper (Zhao et al. 2023, arXiv:2302.04867), for data prediction.
    """

    kept: Tensor
    """sigma_t / sigma_s: factor of the sample."""
    first: Tensor
    """alpha_t (e^-h - 1): factor of the model's output at s."""
    higher: Tensor
    """alpha_t B(h): factor of the differences between outputs."""
    ratios: tuple[Tensor, ...]
    """r_k: distances of the earlier outputs from s, in units of this step."""
    rhos: Tensor
    """Weights of the differences, one for each of `ratios`; a corrector has one more.

    On the latents' device, in their precision.
    """


class UniPcUpdates:
    """Computes the updates of UniPC schedulers, which share coefficients."""

    def __init__(self) -> None:
        self._known: LRUCache[Hashable, _Coefficients] = LRUCache(_MOST_REMEMBERED)

    def attach(self, scheduler: Any) -> None:
        """Make a UniPCMultistepScheduler use these updates; its results stay the same."""

        def predict(model_output: Tensor, *, sample: Tensor, order: int) -> Tensor:
            return self._predict(scheduler, sample, order)

        def correct(
            this_model_output: Tensor, *, last_sample: Tensor, this_sample: Tensor, order: int
        ) -> Tensor:
            return self._correct(scheduler, this_model_output, last_sample, order)

        if scheduler.solver_p is None:  # otherwise another scheduler predicts
            scheduler.multistep_uni_p_bh_update = predict
        scheduler.multistep_uni_c_bh_update = correct

    def _predict(self, scheduler: Any, sample: Tensor, order: int) -> Tensor:
        """Predict the sample at the next noise level (UniP)."""
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
        """Correct the previous step by the model's output at its end (UniC)."""
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
            self._known[key] = _compute(scheduler, levels, sample, corrects=corrects)
        return self._known[key]


def _differences(outputs: list[Tensor], ratios: tuple[Tensor, ...]) -> Tensor | None:
    """Return differences of the earlier outputs to the last one: (batch, len(ratios), ...)."""
    if not ratios:
        return None
    return torch.stack(
        [
            (earlier - outputs[-1]) / ratio
            for earlier, ratio in zip(outputs[-2 : -2 - len(ratios) : -1], ratios, strict=True)
        ],
        dim=1,
    )


def _compute(scheduler: Any, levels: Tensor, sample: Tensor, *, corrects: bool) -> _Coefficients:
    """Compute the coefficients of an update from the noise levels (order + 1,) up to its end.

    Repeats diffusers' operations in their order, so that results are equal bit by bit.
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
