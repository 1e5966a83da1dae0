"""python -m deploy.checkpoint fetch, against a real HTTP server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from deploy.checkpoint.__main__ import main
from deploy.checkpoint.repository import fetch_model
from tests.deploy.hub import COMMIT, REPOSITORY, Hub, serving

Fetch = Callable[..., int]
Output = pytest.CaptureFixture[str]
FILES = {"llm/config.json": b'{"depth": 1}', "llm/ema_model.bin": os.urandom(300_000), "README.md": b"# a model"}
SECRET = "hf_made_up"  # noqa: S105
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 300000\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(dict(FILES)) as running:
        yield running


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Run the command with more words; the folder is `tmp_path`/model."""

    def run(*words: str) -> int:
        whole = ["fetch", REPOSITORY, str(tmp_path / "model"), "--endpoint", hub.endpoint, *words]
        monkeypatch.setattr(sys, "argv", ["checkpoint", *whole])
        return main()

    return run


def found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ranges(hub: Hub) -> list[str]:
    return [asked[1] for asked in hub.asked if asked[1]]


def test_all_pages_of_the_list_are_downloaded_at_one_commit(
    hub: Hub, fetch: Fetch, tmp_path: Path, capsys: Output
) -> None:
    assert fetch() == 0
    assert found(tmp_path / "model") == FILES
    assert f"{REPOSITORY} at {COMMIT}: 3 files, 0.3 MB" in capsys.readouterr().out
    assert fetch("--only", "llm/*", "--into", "part") == 0
    assert set(found(tmp_path / "model" / "part")) == {"llm/config.json", "llm/ema_model.bin"}


def test_a_large_file_s_progress_is_printed(fetch: Fetch, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(fetch_model, "SECONDS_PER_LINE", 0)
    assert fetch() == 0
    assert "llm/ema_model.bin: 100% of 300000 bytes, " in capsys.readouterr().out


def test_the_printed_digests_verify_the_folder(
    fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert fetch() == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["checkpoint", "digests", str(tmp_path / "model")])
    assert main() == 0
    files = yaml.safe_load(capsys.readouterr().out)["files"]
    assert set(files) == set(FILES)
    fetch_model.obtain({"source": "claim", "files": files, "target": str(tmp_path), "into": "model"})


def test_complete_files_are_not_downloaded_again(hub: Hub, fetch: Fetch) -> None:
    assert fetch() == 0
    hub.asked.clear()
    assert fetch() == 0
    assert [asked for asked in hub.asked if "/storage/" in asked[0]] == []


def test_a_connection_that_ends_early_is_continued_after_its_bytes(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    hub.cut_after = 100_000
    assert fetch() == 0
    assert found(tmp_path / "model") == FILES
    assert "bytes=100000-" in ranges(hub)


def test_the_next_run_continues_an_interrupted_download(hub: Hub, fetch: Fetch, tmp_path: Path, capsys: Output) -> None:
    hub.cut_after, hub.refuses_after_a_cut = 100_000, True
    assert fetch() == 1
    assert "401" in capsys.readouterr().err
    (partial,) = (path for path in (tmp_path / "model").rglob("*.part"))
    assert partial.read_bytes() == FILES["llm/ema_model.bin"][:100_000]
    hub.token = ""
    hub.asked.clear()
    assert fetch() == 0
    assert found(tmp_path / "model") == FILES
    assert set(ranges(hub)) == {"bytes=100000-"}


def test_content_with_another_checksum_is_refused_and_removed(
    hub: Hub, fetch: Fetch, tmp_path: Path, capsys: Output
) -> None:
    hub.served = {"llm/config.json": b'{"depth": 2}'}
    assert fetch() == 1
    assert "llm/config.json: Git blob id is" in capsys.readouterr().err
    assert set(found(tmp_path / "model")) == {"README.md"}
    hub.served = {"llm/ema_model.bin": bytes(300_000)}
    assert fetch() == 1
    assert "llm/ema_model.bin: SHA-256 is" in capsys.readouterr().err
    assert set(found(tmp_path / "model")) == {"README.md", "llm/config.json"}


def test_a_pointer_in_place_of_a_large_file_is_refused_by_name(
    hub: Hub, fetch: Fetch, tmp_path: Path, capsys: Output
) -> None:
    hub.served = {"llm/ema_model.bin": POINTER}
    assert fetch() == 1
    assert "the source sent a Git LFS pointer" in capsys.readouterr().err
    assert "llm/ema_model.bin" not in found(tmp_path / "model")


def test_the_token_goes_to_the_endpoint_and_not_to_its_storage(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    hub.token = SECRET
    assert fetch() == 1
    assert "401 Unauthorized; set HF_TOKEN to a token that may read example/model" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.asked.clear()
    assert fetch() == 0
    assert {given for place, _, given in hub.asked if place.startswith("127.0.0.1")} == {f"Bearer {SECRET}"}
    assert {given for place, _, given in hub.asked if place.startswith("localhost")} == {""}
    assert SECRET not in "".join(capsys.readouterr())


def test_a_revision_or_pattern_without_files_is_refused(hub: Hub, fetch: Fetch, capsys: Output) -> None:
    assert fetch("--revision", "nothing") == 1
    assert "no such repository, revision or file" in capsys.readouterr().err
    assert fetch("--only", "nothing/*") == 1
    assert "none of 3 files matches nothing/*" in capsys.readouterr().err


def test_a_path_that_leads_out_of_the_folder_is_refused(hub: Hub, fetch: Fetch, tmp_path: Path, capsys: Output) -> None:
    hub.files["../escape"] = b"x"
    assert fetch() == 1
    assert "leads out of" in capsys.readouterr().err
    assert not (tmp_path / "escape").exists()
