"""Compiles every kernel for compute capability 9.0 (an H100), which needs no GPU: `python tests/kernels/compiled.py`.

Each operation runs on tensors of the released shapes with its launches written down instead of done; each launch is
then compiled with the types of its arguments. Prints shared memory and spilled registers of each.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import choose, launch
from kernels.bias_add import bias_add
from kernels.group_norm import group_norm
from kernels.layer_norm import layer_norm
from kernels.narrow_convolution import narrow_convolution
from kernels.rms_norm import add_rms_norm, rms_norm
from kernels.rotary import rotate_and_keep
from kernels.sampling import Draw, sample
from kernels.silu_mul import silu_mul
from kernels.split_product import split_product

TARGET = GPUTarget("cuda", 90, 32)
OPTIONS = ("num_warps", "enable_fp_fusion")
Launch = tuple[launch.Kernel, tuple[Any, ...], dict[str, Any]]


class Recorder:
    """Takes the place of a kernel's launch."""

    launches: ClassVar[list[Launch]] = []

    def __init__(self, kernel: launch.Kernel) -> None:
        self.kernel = kernel

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.launches.append((self.kernel, arguments, options))


def operations(dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every operation in every variant that the model uses."""

    def of(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=kind)

    x, weight = of(2, 3, 1536), of(1536)
    modulation = (of(2, 1, 1536), of(2, 1, 1536))
    yield lambda: silu_mul(x, x)
    yield lambda: silu_mul(*of(2, 3, 8192).chunk(2, dim=-1))
    yield lambda: split_product(
        of(2, 3, 1536, kind=torch.float32), of(64, 4608, kind=torch.bfloat16), of(64, kind=torch.float32)
    )
    yield lambda: rms_norm(x, weight, 1e-6)
    yield lambda: rms_norm(x, weight, 1e-6, modulation)
    yield lambda: add_rms_norm(x, x, None, weight, 1e-6)
    yield lambda: add_rms_norm(x, x, of(2, 1, 1536), weight, 1e-6, modulation)
    wide = of(1, 2, 3, 1024)
    affine = (of(1024), of(1024))
    yield lambda: layer_norm(wide[:, :1], None, affine, wide, wide)
    yield lambda: layer_norm(wide, (wide, wide), affine, wide, wide)
    yield lambda: layer_norm(wide, (wide, wide), None, wide, wide)
    for heads, size in ((24, 64), (16, 96)):
        kept = (of(4, heads, 9, size), of(4, heads, 9, size))
        table = (of(2, 1, 3, size), of(2, 1, 3, size))
        qkv = of(2, 3, 3, heads, size)
        yield partial(rotate_and_keep, qkv, (weight, weight), table, kept, torch.zeros(2).long(), 2)
    for width in (160, 320, 640):
        for silu in (True, False):
            yield partial(group_norm, of(1, width, 8, 8), 32, of(width), of(width), 1e-6, silu)
        yield partial(group_norm, of(1, width, 8, 8), 32, of(width), of(width), 1e-6, True, of(width))
        yield partial(narrow_convolution, of(1, width, 8, 8), of(3, width, 3, 3), of(3))
        yield partial(bias_add, of(1, width, 8, 8), of(width))
        yield partial(bias_add, of(1, width, 8, 8), of(width), of(1, width, 8, 8))
    for vocabulary in (4096, 1001):
        logits, book = of(1, 2, 3, vocabulary, kind=torch.float32), of(vocabulary, 32, kind=torch.float32)
        more_smooth, keys = torch.ones(1, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.int64)
        yield partial(sample, logits, torch.zeros(1), keys, more_smooth, book, Draw(0, 600, 1.0, 0.1))


def compile_launch(kernel: launch.Kernel, arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    """Compiles one launch; a line about the result."""
    function = kernel.compiled
    signature, constants, attributes = {}, {}, {}
    for number, (parameter, value) in enumerate(zip(function.params, arguments, strict=True)):
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = "*" + str(triton.runtime.jit.type_canonicalisation_dict[str(value.dtype)[6:]])
            attributes[(number,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            if isinstance(value, int) and value % 16 == 0 and parameter.name not in kernel.unspecialized:
                attributes[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constants, attributes)
    chosen = {name: value for name, value in options.items() if name in OPTIONS}
    made = triton.compile(source, target=TARGET, options=chosen)
    ptx = made.asm["ptx"]
    spills = ptx.count("st.local")
    return f"{kernel.function.__module__}.{kernel.function.__name__}: shared {made.metadata.shared}, spills {spills}"


def main() -> None:
    launch.Kernel.__getitem__ = lambda kernel, grid: Recorder(kernel)  # type: ignore[method-assign]
    with torch.no_grad(), choose.using("kernel"):
        for dtype in (torch.bfloat16, torch.float32):
            for operation in operations(dtype):
                operation()
    for one in Recorder.launches:
        print(compile_launch(*one), flush=True)


if __name__ == "__main__":
    main()
