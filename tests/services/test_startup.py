"""services.*.__main__, runtime.server.process: start, refusal with one line and exit code 2, clean exit."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from common.limits import MAX_PROMPT_CHARACTERS
from k8s.build_schema import PROCESSES
from runtime.server.process import run
from runtime.settings import ProcessSettings, SettingsError, StageSettings
from services.ar_generator.config import ArGeneratorSettings
from services.ar_generator.engine import GeneratorEngine
from services.decoder.config import DecoderSettings
from services.decoder.engine import DecoderEngine
from services.safety.config import SafetySettings
from services.safety.engine import SafetyEngine
from services.text_encoder.config import TextEncoderSettings
from services.text_encoder.engine import TextEncoderEngine

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("settings", [SafetySettings, TextEncoderSettings, ArGeneratorSettings, DecoderSettings])
def test_stage_reads_every_setting_that_it_declares(settings: type[StageSettings]) -> None:
    folder = ROOT / "services" / settings.__module__.split(".")[1]
    source = "".join(file.read_text() for file in folder.glob("*.py"))
    own = settings.model_fields.keys() - ProcessSettings.model_fields.keys()
    assert [name for name in own if f"settings.{name}" not in source] == []


@pytest.mark.parametrize(
    ("settings", "max_request_bytes"),
    [
        (SafetySettings(), 8 * 4 * MAX_PROMPT_CHARACTERS),
        (TextEncoderSettings(), 8 * 4 * MAX_PROMPT_CHARACTERS),
        (ArGeneratorSettings(), 300 * 1536 * 4),
        (DecoderSettings(), 4 * 32 * 64**2 * 4),
    ],
    ids=["safety", "text_encoder", "ar_generator", "decoder"],
)
def test_max_message_bytes_fits_the_largest_request(settings: StageSettings, max_request_bytes: int) -> None:
    assert max_request_bytes < settings.max_message_bytes < 100 * max_request_bytes


@pytest.mark.parametrize(
    ("settings", "stage", "variable", "value"),
    [
        (SafetySettings, "safety", "HART_UNSAFE_ACTION", "ignore"),
        (SafetySettings, "safety", "HART_REPLACEMENT_PROMPT", " "),
        (TextEncoderSettings, "text_encoder", "HART_CACHE_BYTES", "-1"),
        (ArGeneratorSettings, "ar_generator", "HART_SLOTS", "0"),
        (ArGeneratorSettings, "ar_generator", "HART_DTYPE", "float8"),
        (DecoderSettings, "decoder", "HART_MAX_BATCH", "many"),
    ],
)
def test_invalid_setting_is_named_and_exits_with_2(
    settings: type,
    stage: str,
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", [stage])
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        run(settings, stage, lambda app, settings: None)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{stage}: {variable}={value!r}")


@pytest.mark.parametrize("process", PROCESSES)
def test_help_describes_the_process_and_every_setting(
    process: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [process, "--help"])
    kind = PROCESSES[process]
    with pytest.raises(SystemExit) as ended:
        run(kind, process, lambda app, settings: pytest.fail("started"))
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    package = importlib.import_module(kind.__module__.rpartition(".")[0])
    assert f"python -m {package.__name__}" in shown
    assert str(package.__doc__) in shown
    for name, field in kind.model_fields.items():
        assert f" HART_{name.upper()}{' (absent) ' if field.default is None else '='}" in shown
        assert " ".join(str(field.description).split()) in shown


def test_unknown_argument_exits_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["decoder", "--port", "50056"])
    with pytest.raises(SystemExit) as ended:
        run(DecoderSettings, "decoder", lambda app, settings: pytest.fail("started"))
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("python -m services.decoder: error: unrecognized arguments: --port 50056\n")


def test_checkpoint_without_a_part_fails_naming_the_part(tmp_path: Path, folder: str) -> None:
    for part in ("llm", "tokenizer"):
        (tmp_path / part).symlink_to(Path(folder) / part)
    engine = TextEncoderEngine(TextEncoderSettings(checkpoint=str(tmp_path)))
    with pytest.raises(SettingsError, match=f"^HART_CHECKPOINT='{tmp_path}': .*text_encoder: no text model here"):
        engine.load()


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        (SafetyEngine, SafetySettings),
        (TextEncoderEngine, TextEncoderSettings),
        (GeneratorEngine, ArGeneratorSettings),
        (DecoderEngine, DecoderSettings),
    ],
)
def test_invalid_device_or_checkpoint_is_named_by_its_setting(engine: type, settings: type, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^HART_DEVICE='gpu': 'gpu' cannot be used: Expected one of cpu"):
        engine(settings(device="gpu"))
    parts = "llm/, tokenizer/, text_encoder/, safety/"
    with pytest.raises(SettingsError, match=f"^HART_CHECKPOINT='{tmp_path}': .*none of the folders {parts} is in it"):
        engine(settings(checkpoint=str(tmp_path)))
