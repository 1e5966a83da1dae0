"""The check for NaN and infinity that every network output must pass."""

from torch import Tensor

from model.errors import NotFiniteError


def require_finite(result: Tensor, name: str) -> None:
    """Raises NotFiniteError with `name` if an element is NaN or infinite. Synchronises with the device."""
    if not bool(result.isfinite().all()):
        raise NotFiniteError(name)
