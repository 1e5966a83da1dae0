"""Progress of the command where standard error is no terminal."""

import pytest
from hart.cli import bar as module


def test_without_a_terminal_progress_is_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("hart.cli.bar.time.monotonic", lambda: clock[0])
    with module.bar() as progress:
        task = progress.add_task("waiting", total=None)
        for scale in range(6):
            clock[0] += 2
            progress.update(task, description=f"scale {scale + 1}/6", total=6, advance=1)
        progress.advance(task)
    assert capsys.readouterr().err == "scale 3/6, 3 of 6\nscale 6/6, 6 of 6\n"
