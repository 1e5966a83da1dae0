"""Triton functions that are compiled at their first launch, so that importing them imports no triton."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch


class _Unimported:
    """Stands for `triton.language` in a module's annotations until its first launch."""

    constexpr = "constexpr"


tl: Any = _Unimported()


class Kernel:
    """A Triton function, launched as `kernel[grid](...)` with a kernel's tensors on one device."""

    def __init__(self, function: Callable[..., Any], unspecialized: Sequence[str]) -> None:
        self.function, self.unspecialized = function, unspecialized
        self._compiled: Any = None

    @property
    def compiled(self) -> Any:
        """The JIT function; made at first use, with everything in its module that it may call."""
        if self._compiled is None:
            import triton

            scope: dict[str, Any] = self.function.__globals__
            scope["tl"] = triton.language
            self._compiled = triton.jit(self.function, do_not_specialize=list(self.unspecialized))
            for name, value in list(scope.items()):
                if isinstance(value, Kernel) and value.unspecialized == HELPER:
                    scope[name] = value.compiled
        return self._compiled

    def __call__(self, *_: Any) -> Any:
        """For Triton's compiler alone, which calls what is in `compiled`."""
        raise TypeError(f"{self.function.__name__}: a Triton function is launched on a grid, or called by another one")

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        first: torch.Tensor = arguments[0]
        if first.is_cuda and first.device.index != torch.cuda.current_device():
            with torch.cuda.device(first.device):  # Triton launches on the current one
                self.compiled[grid](*arguments, **options)
        else:
            self.compiled[grid](*arguments, **options)


HELPER = ("helper",)
"""Marks functions that kernels call and that are not launched."""


def kernel(*unspecialized: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorates a kernel; it is not compiled anew for the named integer arguments where they are 1 or a multiple of 16.

    Strides and sizes should not be named: that they are multiples of 16 lets Triton load 16 bytes at once.
    """
    return lambda function: Kernel(function, unspecialized)


def helper(function: Callable[..., Any]) -> Kernel:
    """Decorates a function that kernels call."""
    return Kernel(function, HELPER)


def interpreted() -> bool:
    """Whether Triton's interpreter runs kernels, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def power_of_2(count: int) -> int:
    """The smallest power of two that is not less than `count`."""
    return 1 << max(0, count - 1).bit_length()


def rows_of(tensor: torch.Tensor) -> int:
    """Elements between one row of a tensor and the next, its last axis being dense."""
    if tensor.stride(-1) != 1 and tensor.shape[-1] != 1:
        raise ValueError(f"strides {tensor.stride()}: expected a dense last axis")
    return tensor.stride(-2) if tensor.ndim > 1 else 0
