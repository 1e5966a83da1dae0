"""One law for every result of a network: NaN and infinities are no result."""

from torch import Tensor

from model.errors import NotFiniteError


def require_finite(result: Tensor, name: str) -> None:
    """Waits for the device. Raises NotFiniteError with the name where an element is NaN or infinite."""
    if not bool(result.isfinite().all()):
        raise NotFiniteError(name)
