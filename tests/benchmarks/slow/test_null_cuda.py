"""benchmarks.null_cuda: stubs of CUDA's functions, and errors for a missing prerequisite."""

import subprocess
import sys

import pytest
import torch

from benchmarks.null_cuda.__main__ import SOURCE, stand_ins

NEEDED = [
    "cublasGemmEx",
    "cublasLtMatmulDescCreate",
    "cublasSetStream_v2",
    "cuDevicePrimaryCtxGetState",
    "cuFileRead",
    "cuLaunchKernel",
    "cudaMalloc",
    "cudaStreamDestroy",
    "malloc",
]


def test_each_cuda_function_that_torch_needs_has_one_stub() -> None:
    runtime, driver = stand_ins(NEEDED, SOURCE.read_text())
    assert "int cudaStreamDestroy(void) { return 0; }" in runtime
    assert "int cublasGemmEx(void) { return null_cuda_launched(); }" in runtime
    assert "int cublasLtMatmulDescCreate(void) { return 0; }" in runtime
    assert "int cuLaunchKernel(void) { return 0; }" in driver
    assert driver.count("cuDevicePrimaryCtxGetState(") == 1
    for foreign in ("cudaMalloc(", "malloc(", "cuFileRead("):  # written by hand, or not part of CUDA
        assert foreign not in runtime + driver


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.null_cuda", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built for CUDA")
def test_interpreter_without_cuda_is_named() -> None:
    ended = run_program("--python", sys.executable, "-m", "training.gpu")
    assert ended.returncode != 0
    assert f"--python {sys.executable}: its torch is built for CUDA None: expected 13" in ended.stderr
    assert "--python nowhere/python: no such program" in run_program("--python", "nowhere/python", "-m", "x").stderr
    assert "nothing to run" in run_program("--python", sys.executable).stderr
