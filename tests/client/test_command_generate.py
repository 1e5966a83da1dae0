"""hart.cli.generate: `hart generate`, its files, standard output and messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hart.cli.app import app
from PIL import Image as PillowImage
from typer.testing import CliRunner

from tests.client.conftest import Gateway


def test_generate_writes_a_file_and_prints_timings(hart: Any, tmp_path: Path) -> None:
    outcome = hart("generate", "a red heart", "--seed", 7)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout == ""
    assert PillowImage.open(tmp_path / "picture.png").getpixel((0, 0)) == (7, 0, 0)
    for word in ("picture.png", "seed 7", "ar_generator", "gateway", "wall"):
        assert word in outcome.stderr
    assert "note" not in outcome.stderr


def test_every_command_option_is_sent(hart: Any, gateway: Gateway) -> None:
    outcome = hart(
        "generate", "x", "-o", "a.jpg", "--num-images", 2, "--seed", 5, "--guidance", 0, "--no-more-smooth",
        "--top-p", 0.9, "--quality", 80, "--preview", 1, "--no-embed-metadata", "--model", "tiny",
        "--request-id", "r-1", "--residual-temperature", 0.25, "--timeout", 90, "--api-key", "k",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    sent: Any = gateway.requests[0]
    fields = [field.name for field in sent.DESCRIPTOR.fields]
    values = ["tiny", "x", 2, 5, 0, False, 0.9, 2, 80, 1, False, "r-1", 0.25]
    assert [getattr(sent, field) for field in fields] == values
    assert all(sent.HasField(field.name) for field in sent.DESCRIPTOR.fields if field.has_presence)
    assert 0 < (gateway.remaining[0] or 0) < 90 + 1  # gRPC rounds up, from a clock read earlier
    assert gateway.metadata[0]["authorization"] == "Bearer k"


def test_several_images_are_numbered_with_their_previews(hart: Any, tmp_path: Path) -> None:
    assert hart("generate", "x", "-o", "a.webp", "-n", 2, "--preview", 1).exit_code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a-0.preview.jpg", "a-0.webp", "a-1.preview.jpg", "a-1.webp"]
    assert PillowImage.open("a-0.webp").format == "WEBP"
    assert PillowImage.open("a-0.preview.jpg").format == "JPEG"


def test_file_name_is_printed_literally(hart: Any, tmp_path: Path) -> None:
    outcome = hart("generate", "x", "-o", "[red]a.png")
    assert outcome.exit_code == 0, outcome.output
    assert "[red]a.png" in outcome.stderr
    assert (tmp_path / "[red]a.png").exists()


def test_json_is_alone_on_stdout_with_exact_integers(hart: Any) -> None:
    outcome = hart("generate", "x", "--seed", 2**53 - 1, "--json")
    answer = json.loads(outcome.stdout)
    assert answer["prompt"] == "x"
    assert answer["images"][0]["seed"] == 2**53 - 1
    assert answer["images"][0]["bytes"] == Path(answer["images"][0]["path"]).stat().st_size
    assert answer["timings"]["calls"][0]["transfer_bytes"] == 2**40
    assert answer["verdict"]["action"] == "allow"
    assert answer["model"] == {"name": "tiny", "digest": "ab" * 32}


def test_unknown_words_print_a_hint(hart: Any) -> None:
    outcome = hart("generate", "a zyzzyva")
    assert outcome.exit_code == 0
    assert "not trained on: zyzzyva" in outcome.stderr
    assert "hart describe" in outcome.stderr


def test_hints_for_a_prompt_file_name_the_prompt_in_line_order(hart: Any) -> None:
    Path("p.txt").write_text("a heart\na [zyzzyva]\nzyzzyvas\n")
    output = hart("generate", "--file", "p.txt").stderr
    notes = [line for line in output.splitlines() if line.startswith("note:")]
    assert [note.split(":")[1].strip() for note in notes] == ["'a [zyzzyva]'", "'zyzzyvas'"]


def test_help_gives_one_default_timeout() -> None:
    for command, default in (
        ("describe", "[default: 10]"),
        ("bench", "[default: 60]"),
        ("generate", "Default: the server's, 60"),
    ):
        output = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        line = next(line for line in output.splitlines() if "--timeout" in line)
        assert line.lower().count("default") == 1
        assert default in line
