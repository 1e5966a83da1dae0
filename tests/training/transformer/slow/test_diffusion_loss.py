"""training.transformer.diffusion_loss: residuals that were learned are the residuals drawn."""

import torch

from model.diffusion import RESIDUAL_SCALE, ResidualDiffusion
from training.core.optim import Optimizers
from training.transformer.diffusion_loss import DiffusionLoss, draw_times
from training.transformer.train import ENDS


def test_a_residual_learned_is_the_residual_drawn() -> None:
    torch.manual_seed(0)
    head = ResidualDiffusion(channels=4, condition=8, width=32, depth=2, steps=8)
    optimizers, loss = Optimizers(head, 3e-3, ENDS), DiffusionLoss()
    conditions = torch.randn(2, 8)
    wanted = torch.tensor([[0.3, -0.3, 0.1, 0.0], [-0.2, 0.2, 0.0, 0.4]])
    for _ in range(600):
        rows = torch.randint(2, (128,))
        t, noise = torch.randint(1000, (128,)), torch.randn(128, 4)
        loss(head.net, wanted[rows], conditions[rows], t, noise).backward()
        optimizers.step(1.0)
    with torch.no_grad():
        drawn = head.sample(
            conditions[:, None, None].expand(-1, 2, 16, -1),
            torch.zeros(2),
            torch.randn(2, 16, 4),
            torch.randn(7, 2, 16, 4),
        )
    assert float((drawn.mean(1) - wanted).abs().max()) < 0.1


def test_a_width_of_its_own_does_not_change_the_guess_at_the_noise() -> None:
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.guess = torch.nn.Parameter(torch.zeros(4))
            self.width = torch.nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor, t: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.guess.expand_as(x), self.width.expand_as(x)

    net, loss = Net(), DiffusionLoss()
    residual, noise = RESIDUAL_SCALE * torch.randn(64, 4), torch.randn(64, 4)
    loss(net, residual, residual, torch.full((64,), 300), noise).backward()
    alone = (2 * (net.guess.detach() - noise) / (64 * 4)).sum(0)
    assert net.guess.grad is not None
    torch.testing.assert_close(net.guess.grad, alone)
    assert net.width.grad is not None
    assert float(net.width.grad.abs().sum()) > 0


def test_half_of_the_times_are_late_and_all_are_reached() -> None:
    torch.manual_seed(0)
    times = draw_times(20_000, torch.device("cpu"))
    assert (int(times.min()), int(times.max())) == (0, 999)
    assert int((times < 400).sum()) == 20_000 * (0.5 + 0.5 * 0.4)
    assert float((times[:1000] < 400).float().mean()) < 0.8  # in random order
