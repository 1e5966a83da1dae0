"""The device that does nothing: who answers for which function, and what a user is told who lacks what it takes."""

import subprocess
import sys

import pytest
import torch

from benchmarks.null_cuda.__main__ import SOURCE, stand_ins

WANTED = [
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


def test_each_function_that_torch_wants_of_cuda_has_one_answer() -> None:
    runtime, driver = stand_ins(WANTED, SOURCE.read_text())
    assert "int cudaStreamDestroy(void) { return 0; }" in runtime
    assert "int cublasGemmEx(void) { return null_cuda_launched(); }" in runtime
    assert "int cublasLtMatmulDescCreate(void) { return 0; }" in runtime
    assert "int cuLaunchKernel(void) { return 0; }" in driver
    assert driver.count("cuDevicePrimaryCtxGetState(") == 1
    for foreign in ("cudaMalloc(", "malloc(", "cuFileRead("):  # written by hand, or none of CUDA's
        assert foreign not in runtime + driver


def told(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.null_cuda", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built for CUDA")
def test_an_interpreter_without_cuda_is_named() -> None:
    ended = told("--python", sys.executable, "-m", "training.gpu")
    assert ended.returncode != 0
    assert f"--python {sys.executable}: its torch is built for CUDA None: expected 13" in ended.stderr
    assert "--python nowhere/python: no such program" in told("--python", "nowhere/python", "-m", "x").stderr
    assert "nothing to run" in told("--python", sys.executable).stderr
