"""The automatic device and precision, and the warning of a slow one."""

from pathlib import Path

import pytest
import torch

from model import device, progress
from model.device import AUTO, Compute


@pytest.mark.parametrize(
    ("gpu", "capable", "expected"),
    [(False, False, ("cpu", "float32")), (True, True, ("cuda", "bfloat16")), (True, False, ("cuda", "float32"))],
)
def test_a_gpu_in_bfloat16_is_chosen_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, capable: bool, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capable)
    name = device.automatic_device()
    assert (name, device.automatic_dtype(torch.device(name))) == expected


def test_the_defaults_run_here() -> None:
    compute = Compute.of(AUTO, AUTO)
    assert (compute.device.type == "cuda") == torch.cuda.is_available()
    assert compute.dtype in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("dtype", "flags", "warned"),
    [
        ("bfloat16", {"avx2"}, True),
        ("float16", {"avx2", "avx512_bf16"}, True),
        ("bfloat16", {"avx512_bf16"}, False),
        ("float16", {"asimdhp"}, False),
        ("float32", {"avx2"}, False),
        ("bfloat16", set(), False),
    ],
)
def test_a_precision_without_instructions_is_warned_of_once_with_its_factor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dtype: str, flags: set[str], warned: bool
) -> None:
    device.warn_of_slow_precision.cache_clear()
    monkeypatch.setattr(device, "cpu_flags", lambda: flags)
    for _ in range(2):
        Compute.of("cpu", dtype)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warned
    assert all(f"no instructions for {dtype}" in message and "times as long" in message for message in messages)


def test_the_flags_of_a_cpu_are_read(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimdhp bf16\n")
    assert device.cpu_flags(tmp_path / "x86") == {"fpu", "avx2", "avx512_bf16"}
    assert device.cpu_flags(tmp_path / "arm") == {"fp", "asimdhp", "bf16"}
    assert device.cpu_flags(tmp_path / "absent") == set()


def test_without_a_terminal_progress_is_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("model.progress.time.monotonic", lambda: clock[0])
    with progress.Progress(6) as shown:
        for done in range(1, 7):
            clock[0] += 2
            shown.show(done)
    assert capsys.readouterr().err == "scale 2 of 6\nscale 4 of 6\nscale 6 of 6\n"
