"""training.core.optim: orthogonalisation, the split between Muon and AdamW, the schedule."""

import pytest
import torch
from torch import nn

from training.core.optim import Muon, Optimizers, orthogonalize, rate_share


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 8, 8)])
def test_singular_values_become_about_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    evened = orthogonalize(torch.randn(shape)).float()
    assert evened.shape == shape
    values = torch.linalg.svdvals(evened)
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.4


def test_an_update_has_the_size_of_an_adamw_one_whatever_the_gradients() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(16, 8, 3, 3))
    weight.grad = 1e-4 * torch.randn_like(weight)
    Muon([weight], lr=0.1).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.1, rel=0.35)


def test_matrices_inside_go_to_muon_and_ends_norms_and_biases_to_adamw() -> None:
    net = nn.ModuleDict({"inner": nn.Linear(4, 4), "head": nn.Linear(4, 2), "norm": nn.LayerNorm(4)})
    muon, adam = Optimizers(net, 1e-3, ("head",)).members
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(4, 4)]
    assert len(adam.param_groups[0]["params"]) == 5


def test_both_learn_a_line() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 1))
    x = torch.randn(64, 4)
    y = x.sum(1, keepdim=True)
    optimizers = Optimizers(net, 1e-2, ("2.",))
    losses = []
    for _ in range(100):
        loss = (net(x) - y).square().mean()
        loss.backward()
        optimizers.step(1.0)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 20


def test_the_rate_rises_holds_and_falls() -> None:
    assert rate_share(0, 0.0) == pytest.approx(0.01)
    assert rate_share(500, 0.1) == rate_share(500, 0.69) == 1.0
    assert rate_share(500, 0.85) == pytest.approx(0.5)
    assert rate_share(500, 1.0) == pytest.approx(0.02)


def test_a_part_of_a_network_may_have_a_rate_of_its_own() -> None:
    net = nn.ModuleDict({"inner": nn.Linear(4, 4), "head": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))})
    optimizers = Optimizers(net, 1e-3, ("1.",), rates={"head": 4e-3})
    muon, adam = optimizers.members
    assert [group["lr"] for group in muon.param_groups] == [1e-3, 4e-3]
    assert [(group["lr"], len(group["params"])) for group in adam.param_groups] == [(5e-4, 1), (2e-3, 3)]
    one_rate = Optimizers(net, 1e-3, ("1.",), rates={"head": 1e-3})
    assert [len(member.param_groups) for member in one_rate.members] == [1, 1]
