"""Triton where kernels are tested: compiled on a GPU, interpreted on a CPU."""

import os
import sys

import pytest

from kernels import choose


def require_triton() -> None:
    """Skips the test without triton; fails it where REQUIRE_KERNELS=1 demands triton."""
    if not choose.triton_is_installed():
        (pytest.fail if os.environ.get("REQUIRE_KERNELS") == "1" else pytest.skip)("triton is not installed")


def prepare(device: str) -> None:
    """Makes kernels run on the device."""
    require_triton()
    if device == "cpu":
        if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("triton was imported without TRITON_INTERPRET=1: its interpreter can no longer be had")
        os.environ["TRITON_INTERPRET"] = "1"
