"""model.engines: the choice of an engine."""

import pytest
import torch

from model import engines
from model.device import Compute
from model.errors import SettingError

CPU = Compute(torch.device("cpu"), torch.float32, 1)
HALF = Compute(torch.device("cpu"), torch.bfloat16, 1)
GPU = Compute(torch.device("cuda"), torch.float32, 1)


def test_auto_takes_onnx_runtime_in_float32_on_a_cpu() -> None:
    assert engines.choose("auto", CPU) == "onnx"
    assert engines.choose("auto", HALF) == "torch"
    assert engines.choose("auto", GPU) == "torch"
    assert engines.choose("torch", CPU) == "torch"


@pytest.mark.parametrize(
    ("engine", "compute", "reason"),
    [
        ("tensorrt", CPU, "'tensorrt': expected one of auto, torch, onnx"),
        ("onnx", HALF, "bfloat16 on cpu"),
        ("onnx", GPU, "float32 on cuda"),
    ],
)
def test_an_engine_that_cannot_run_is_refused(engine: str, compute: Compute, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        engines.choose(engine, compute)


def test_without_its_packages_auto_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PACKAGES", ("onnx", "a_package_that_is_not_there"))
    assert engines.choose("auto", CPU) == "torch"
    with pytest.raises(SettingError, match="not installed: a_package_that_is_not_there"):
        engines.choose("onnx", CPU)
