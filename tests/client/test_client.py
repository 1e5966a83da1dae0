"""hart.client, hart.aio, hart.results: the typed clients against a fake gateway on a real socket."""

from __future__ import annotations

import io
import os
import stat
from importlib import metadata
from pathlib import Path
from typing import Any

import hart
import pytest
from PIL import Image as PillowImage

from tests.client.clients import both
from tests.client.conftest import Gateway


def test_generate_returns_images_in_order_with_seeds_and_report(gateway: Gateway) -> None:
    for answer in both(gateway, "generate", "a red heart", seed=7, num_images=3):
        assert [image.index for image in answer] == [0, 1, 2]
        assert [image.seed for image in answer] == [7, 8, 9]
        assert len(answer) == 3
        assert answer[1] is answer.images[1]
        assert answer.report.timings.wall_seconds == pytest.approx(0.1)
        assert PillowImage.open(io.BytesIO(answer[2].data)).getpixel((0, 0)) == (9, 0, 0)


def test_every_option_is_sent(gateway: Gateway) -> None:
    options: dict[str, Any] = {
        "model": "tiny",
        "num_images": 2,
        "seed": 2**64 - 1,
        "guidance": 0.0,
        "more_smooth": False,
        "top_p": 0.5,
        "residual_temperature": 0.25,
        "format": "jpeg",
        "quality": 1,
        "preview_every": 2,
        "embed_metadata": False,
        "request_id": "r-1",
    }
    assert set(options) == set(hart.request.Options.__annotations__)
    with hart.Client(gateway.endpoint) as client, pytest.raises(hart.HartError):
        client.generate("x", **options)  # the fake's seed arithmetic overflows after the request has arrived
    sent = gateway.requests[0]
    assert sent.prompt == "x"
    for name, value in options.items():
        assert getattr(sent, name) == (2 if name == "format" else value), name


def test_absent_options_stay_absent_except_the_request_id(gateway: Gateway) -> None:
    both(gateway, "generate", "x")
    for sent in gateway.requests:
        present = {descriptor.name for descriptor, _ in sent.ListFields()}
        assert present == {"prompt", "request_id"}
    assert gateway.requests[0].request_id != gateway.requests[1].request_id


def test_stream_yields_typed_events_in_order_and_skips_unknown_ones(gateway: Gateway) -> None:
    for events in both(gateway, "stream", "x", seed=3, num_images=2, preview_every=3):
        kinds = [type(event).__name__ for event in events]
        assert kinds == ["Accepted", "Prepared"] + ["Progress"] * 6 + ["Image"] * 2 + ["Finished"]
        assert events[0].seeds == (3, 4)
        assert [event.preview is not None for event in events[2:8]] == [False] * 4 + [True] * 2
        assert events[7].preview.format == "jpeg"
        assert events[-1].report.model.name == "tiny"


@pytest.mark.parametrize(
    ("prompt", "warnings", "revised"),
    [("x", (), None), ("zyzzyva", ("The prompt has unknown words.",), None), ("unsafe", (), "a flower")],
)
def test_prepared_has_the_warnings_and_the_prompt_that_is_drawn(
    gateway: Gateway, prompt: str, warnings: tuple[str, ...], revised: str | None
) -> None:
    for events in both(gateway, "stream", prompt):
        assert events[1] == hart.Prepared(3, warnings, revised)


def test_describe_and_status_return_messages(gateway: Gateway) -> None:
    for answer in both(gateway, "describe"):
        assert answer.models[0].example_prompts == ["a red heart", "a green apple"]
    for answer in both(gateway, "status"):
        assert [stage.ready for stage in answer.stages] == [2, 2, 2, 0]


def test_save_writes_the_bytes_and_no_partial_file(gateway: Gateway, tmp_path: Any) -> None:
    answer = hart.Client(gateway.endpoint).generate("x", seed=1)
    path = answer[0].save(tmp_path / "a.png")
    assert path.read_bytes() == answer[0].data
    with pytest.raises(OSError, match="missing"):
        answer[0].save(tmp_path / "missing" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="folder"):
        answer[0].save(tmp_path / "folder.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "folder.png"]


def test_save_refuses_a_suffix_of_another_format(gateway: Gateway, tmp_path: Any) -> None:
    image = hart.Client(gateway.endpoint).generate("x", seed=1, format="webp")[0]
    with pytest.raises(ValueError, match=r"a\.JPG: the extension is that of jpeg, but the image is webp"):
        image.save(tmp_path / "a.JPG")
    assert not list(tmp_path.iterdir())
    assert image.save(tmp_path / "a.webp").read_bytes() == image.save(tmp_path / "a").read_bytes() == image.data


def test_save_keeps_the_umask(gateway: Gateway, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = hart.Client(gateway.endpoint).generate("x", seed=1)[0]
    touched: list[int] = []  # the umask is process-wide: other threads' files would get the wrong mode

    def umask(mask: int) -> int:
        touched.append(mask)
        return 0o022

    monkeypatch.setattr(os, "umask", umask)
    image.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    assert not touched
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b.png").stat().st_mode


def test_save_follows_a_dangling_link(gateway: Gateway, tmp_path: Any) -> None:
    image = hart.Client(gateway.endpoint).generate("x", seed=1)[0]
    link, target = tmp_path / "link.png", tmp_path / "folder" / "a.png"
    target.parent.mkdir()
    link.symlink_to(target)
    for _ in range(2):  # dangling, then not
        assert image.save(link) == link
        assert link.is_symlink()
        assert target.read_bytes() == image.data
        assert not target.is_symlink()
        target.write_bytes(b"")
    assert [path.name for path in target.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_save_keeps_the_mode_of_a_replaced_file(gateway: Gateway, tmp_path: Any, mode: int) -> None:
    image = hart.Client(gateway.endpoint).generate("x", seed=1)[0]
    (tmp_path / "a.png").touch()
    (tmp_path / "a.png").chmod(mode)
    assert image.save(tmp_path / "a.png").read_bytes() == image.data
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == mode


def test_save_writes_into_a_pipe(gateway: Gateway, tmp_path: Any) -> None:
    image = hart.Client(gateway.endpoint).generate("x", seed=1)[0]
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        image.save(pipe)
        assert os.read(reader, len(image.data) + 1) == image.data
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.png"]


def test_responses_over_4_mib_arrive_and_describe_raises_the_limit(gateway: Gateway) -> None:
    gateway.padding = 3 << 20
    with hart.Client(gateway.endpoint) as client:
        assert len(client.generate("x", num_images=3)) == 3
        gateway.padding = 65 << 20
        with pytest.raises(hart.Overloaded, match="larger than max"):
            client.generate("x")
        gateway.max_response_bytes = 80 << 20
        client.describe()
        assert len(client.generate("x")[0].data) > 65 << 20


def test_version_is_known_even_if_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hart.__version__ == metadata.version("hart-client")

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert hart.__version__ == "0+unknown"


def test_repr_of_a_result_is_one_line(gateway: Gateway) -> None:
    with hart.Client(gateway.endpoint) as client:
        assert "\n" not in repr(client.generate("x", seed=1))


def test_failed_save_names_the_given_path(gateway: Gateway, tmp_path: Path) -> None:
    image = hart.Client(gateway.endpoint).generate("x", seed=1)[0]
    with pytest.raises(FileNotFoundError) as missing:
        image.save(tmp_path / "missing" / "a.png")
    assert missing.value.filename == str(tmp_path / "missing" / "a.png")
