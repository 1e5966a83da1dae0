"""The device and precision that training computes with, and transfers to it."""

import torch
from torch import Tensor

from model.generation import Conditioning


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions. On a CPU without them a product took 56 times float32's time."""
    return device.type == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the device computes in it, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on `device`. For a GPU the copy is asynchronous: the host does not wait for queued work."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def conditioning_to(given: Conditioning, device: torch.device) -> Conditioning:
    """The same for all tensors of a conditioning."""
    return Conditioning(
        to_device(given.context, device), to_device(given.mask, device), to_device(given.positions, device)
    )
