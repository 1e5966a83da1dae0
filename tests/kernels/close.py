"""How near a kernel must come to float64, and to its twin."""

import torch
from torch import Tensor

from kernels.launch import interpreted

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def truncates(tensor: Tensor) -> bool:
    """Triton's interpreter cuts bfloat16 off where a GPU rounds: twice the error, and no place for equality."""
    return interpreted() and tensor.dtype == torch.bfloat16


def assert_close(found: Tensor, exact: Tensor, steps: float) -> None:
    """Every element within so many of its dtype's eps of the float64 value, relative to the value or to 1.

    One rounding is half an eps at most.
    """
    assert found.shape == exact.shape
    assert exact.dtype == torch.float64
    error = (found.double() - exact).abs() / exact.abs().clamp(min=1)
    assert bool(error.isfinite().all())
    worst = float(error.max()) / torch.finfo(found.dtype).eps / (2 if truncates(found) else 1)
    assert worst <= steps, f"{worst:.2f} eps of {found.dtype} from float64"


def assert_mostly_equal(found: Tensor, twin: Tensor, share: float) -> None:
    """At most this share of elements differs from the twin's, where roundings can be the same."""
    differ = float((found != twin).float().mean())
    assert differ <= share or truncates(found), f"{differ:.1%} of the elements differ from the twin's"


def random(*shape: int, dtype: torch.dtype, device: str, seed: int = 0) -> Tensor:
    """Standard normal, rounded to dtype, the same on every device."""
    generator = torch.Generator().manual_seed(seed + 1000 * len(shape) + sum(shape))
    return torch.randn(shape, generator=generator).to(dtype).to(device)
