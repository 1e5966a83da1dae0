"""Optimisers and the learning rate's course; knows nothing of what is trained.

Matrices and convolutions are moved by Muon (momentum whose singular values are evened out, Jordan 2024,
https://kellerjordan.github.io/posts/muon), everything else by AdamW. Rates of both are on AdamW's scale: Muon's
updates are scaled to AdamW's usual size (Liu et al. 2025, arXiv 2502.16982).
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
UPDATE_SIZE = 0.2  # root mean square of an AdamW update in units of its rate, as measured in arXiv 2502.16982


class Muon(Optimizer):
    """Moves tensors of two or more axes; convolutions count as (out, in·k·k) matrices."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for members in alike(group["params"]):
                updates = even_out(torch.stack([self._ahead(param, group["momentum"]) for param in members]))
                size = UPDATE_SIZE * max(updates.shape[1:]) ** 0.5
                for param, update in zip(members, updates, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(update.view_as(param).to(param.dtype), alpha=-group["lr"] * size)

    def _ahead(self, param: nn.Parameter, momentum: float) -> Tensor:
        """The parameter's gradient with its momentum (Nesterov's), as a matrix, in the precision of the evening out."""
        assert param.grad is not None  # noqa: S101 - `alike` leaves the others out
        state = self.state[param]
        if not state:
            state["momentum"] = torch.zeros_like(param)
        state["momentum"].lerp_(param.grad, 1 - momentum)
        return param.grad.lerp(state["momentum"], momentum).flatten(1).bfloat16()


def alike(params: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters with gradients, those whose matrices have one shape together: they are evened out at once."""
    found: dict[torch.Size, list[nn.Parameter]] = {}
    for param in params:
        if param.grad is not None:
            found.setdefault(param.grad.flatten(1).shape, []).append(param)
    return list(found.values())


def even_out(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) to about their nearest orthogonal ones, by Newton-Schulz steps in bfloat16."""
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Optimizers:
    """Muon for the matrices inside a network, AdamW for embeddings, first and last layers, norms and biases."""

    def __init__(self, network: nn.Module, rate: float, ends: tuple[str, ...], weight_decay: float = 0.01) -> None:
        """`ends`: name parts of the parameters which AdamW moves although they are matrices; it gets half the rate."""
        named = [(name, param) for name, param in network.named_parameters() if param.requires_grad]
        matrices = [p for name, p in named if p.ndim >= 2 and not any(end in name for end in ends)]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in chosen]
        self.members: list[Optimizer] = [Muon(matrices, rate, weight_decay=weight_decay)] if matrices else []
        self.members.append(AdamW(others, rate / 2, betas=(0.9, 0.98), weight_decay=0.0))
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


def rate_share(step: int, progress: float, warmup: int = 100, decay: float = 0.3) -> float:
    """Share of the peak rate: up over `warmup` steps, constant, down to 2% over the last `decay` of the run.

    The constant part is long on purpose: a small transformer's loss falls late and suddenly.
    """
    return min(1.0, (step + 1) / warmup, max(0.02, (1 - progress) / decay))
