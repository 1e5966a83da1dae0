"""Optimisers and the learning-rate schedule.

Muon updates matrices and convolutions (orthogonalised momentum, Jordan 2024,
https://kellerjordan.github.io/posts/muon), AdamW everything else. Rates of both are on AdamW's scale: Muon's
updates are scaled to AdamW's usual size (Liu et al. 2025, arXiv 2502.16982).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from training.core.device import computes_bfloat16

NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
UPDATE_SIZE = 0.2  # root mean square of an AdamW update in units of its rate, as measured in arXiv 2502.16982


class Muon(Optimizer):
    """Updates tensors of two or more axes; convolutions count as (out, in·k·k) matrices."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for members in same_shape(group["params"]):
                updates = orthogonalize(torch.stack([self._ahead(param, group["momentum"]) for param in members]))
                size = UPDATE_SIZE * max(updates.shape[1:]) ** 0.5
                for param, update in zip(members, updates, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(update.view_as(param).to(param.dtype), alpha=-group["lr"] * size)

    def _ahead(self, param: nn.Parameter, momentum: float) -> Tensor:
        """The parameter's gradient with its momentum (Nesterov's), as a matrix."""
        assert param.grad is not None  # noqa: S101 - `same_shape` leaves the others out
        state = self.state[param]
        if not state:
            state["momentum"] = torch.zeros_like(param)
        state["momentum"].lerp_(param.grad, 1 - momentum)
        return param.grad.lerp(state["momentum"], momentum).flatten(1)


def same_shape(params: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters with gradients, grouped by the shape of their matrices, to be orthogonalised in one batch."""
    found: dict[torch.Size, list[nn.Parameter]] = {}
    for param in params:
        if param.grad is not None:
            found.setdefault(param.grad.flatten(1).shape, []).append(param)
    return list(found.values())


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) to about their nearest orthogonal ones, by Newton-Schulz iteration.

    In bfloat16, which is precise enough, where the device computes in it.
    """
    x = matrices.bfloat16() if computes_bfloat16(matrices.device) else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Optimizers:
    """Muon for the matrices inside a network, AdamW for embeddings, first and last layers, norms and biases."""

    def __init__(
        self,
        network: nn.Module,
        rate: float,
        ends: tuple[str, ...],
        weight_decay: float = 0.01,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        """`ends`: substrings of the names of matrices that AdamW updates nevertheless, at half the rate.

        `rates`: other peak rates, by the first part of a parameter's name.
        """
        named = [(name, param) for name, param in network.named_parameters() if param.requires_grad]
        inner = [(n, p) for n, p in named if p.ndim >= 2 and not any(end in n for end in ends)]
        chosen = {name for name, _ in inner}
        outer = [(name, p) for name, p in named if name not in chosen]
        peaks = {"": rate, **(rates or {})}
        self.members: list[Optimizer] = (
            [Muon(_groups(inner, peaks, 1.0), rate, weight_decay=weight_decay)] if inner else []
        )
        self.members.append(AdamW(_groups(outer, peaks, 0.5), rate / 2, betas=(0.9, 0.98), weight_decay=0.0))
        self._peaks = [[group["lr"] for group in member.param_groups] for member in self.members]
        self._params = [p for _, p in named]

    def step(self, share: float, clip: float = 1.0) -> Tensor:
        """One update at `share` of the peak rates, gradients clipped to norm `clip`; returns the norm before."""
        norm = nn.utils.clip_grad_norm_(self._params, clip)
        for member, peaks in zip(self.members, self._peaks, strict=True):
            for group, peak in zip(member.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            member.step()
            member.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, object]:
        return {str(i): member.state_dict() for i, member in enumerate(self.members)}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        for i, member in enumerate(self.members):
            member.load_state_dict(state[str(i)])


def _groups(
    named: Sequence[tuple[str, nn.Parameter]], peaks: Mapping[str, float], share: float
) -> list[dict[str, Any]]:
    """Parameters by their peak rates: `peaks` by the first part of a name, "" for all others; times `share`."""
    found: dict[float, list[nn.Parameter]] = {}
    for name, param in named:
        found.setdefault(peaks.get(name.partition(".")[0], peaks[""]), []).append(param)
    return [{"params": params, "lr": peak * share} for peak, params in found.items()]


def rate_share(step: int, fraction: float, warmup: int = 100, decay: float = 0.3) -> float:
    """Share of the peak rate: linear warm-up over `warmup` steps, constant, down to 2% over the last `decay` of a run.

    `fraction` of the budget is used, 0 to 1. The constant part is long because a small transformer's loss falls late.
    """
    return min(1.0, (step + 1) / warmup, max(0.02, (1 - fraction) / decay))
