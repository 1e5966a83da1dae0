"""Where training computes, and how data gets there. Knows nothing of what is trained."""

import torch
from torch import Tensor

from model.generation import Conditioning


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's on `device`; nobody waits for what a GPU has still to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def sent_conditioning(given: Conditioning, device: torch.device) -> Conditioning:
    """All of a conditioning."""
    return Conditioning(sent(given.context, device), sent(given.mask, device), sent(given.positions, device))
