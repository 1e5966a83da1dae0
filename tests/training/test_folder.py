"""A folder of pictures: what is read of it, what is kept on disk, and what is said of a folder that cannot be used."""

import fcntl
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFont

from training.album import read_captioned, read_pictures, shared_album
from training.folder import FolderError, read_square
from training.sheet import save_sheet


def picture(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (8, 8)) -> None:
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(path)


def test_pictures_with_captions_beside_them(tmp_path: Path) -> None:
    picture(tmp_path / "b.png", (0, 0, 255))
    picture(tmp_path / "a.png", (255, 0, 0, 0), (16, 8))
    (tmp_path / "a.txt").write_text("nothing\n\nreally nothing\n")
    (tmp_path / "b.txt").write_text("a blue square")
    found = read_captioned(tmp_path, 4, tmp_path / "kept" / "album")
    assert found.pixels.shape == (2, 4, 4, 3)
    assert (found.pixels[0] == 255).all()  # transparent is white
    assert (found.pixels[1] == [0, 0, 255]).all()
    assert found.words == [["nothing", "really nothing"], ["a blue square"]]


def test_a_table_of_captions(tmp_path: Path) -> None:
    picture(tmp_path / "x.png", (0, 255, 0))
    (tmp_path / "captions.tsv").write_text("x.png\ta green square\nx.png\tgreen\n")
    assert read_captioned(tmp_path, 8, tmp_path / "kept" / "album").words == [["a green square", "green"]]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "no pictures"),
        ({"a.png": None}, "a.png: no caption; expected a.txt"),
        ({"a.png": None, "a.txt": "  \n"}, "a.txt: empty"),
        ({"a.png": b"no picture", "a.txt": "words"}, "a.png: not a picture"),
        ({"captions.tsv": "gone.png\twords\n"}, "line 1: gone.png: no such picture"),
        ({"a.png": None, "captions.tsv": "a.png words\n"}, "line 1: expected a file name, a tab"),
        ({"a.png": None, "captions.tsv": b"a.png\tk\xe4tzchen\n"}, "captions.tsv: not text in UTF-8"),
        ({"a.png": None, "captions.tsv": 'a.png\t"never closed\n'}, "captions.tsv: not a table with tabs"),
        ({"a.png": None, "a.txt": b"k\xe4tzchen"}, "a.txt: not text in UTF-8"),
    ],
)
def test_a_folder_that_cannot_be_used_says_which_file(tmp_path: Path, files: dict[str, object], told: str) -> None:
    for name, content in files.items():
        if content is None:
            picture(tmp_path / name, (0, 0, 0))
        elif isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            (tmp_path / name).write_text(str(content))
    with pytest.raises(FolderError, match=told):
        read_captioned(tmp_path, 8, tmp_path / "kept" / "album")


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.paste("blue", (0, 0, 8, 4))
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    pixels = read_pictures(tmp_path, 8, tmp_path / "kept" / "album", least=0).pixels
    assert pixels[0, 0, 0].tolist() == [255, 0, 0]
    assert pixels[0, 7, 7].tolist() == [0, 0, 255]


def test_pictures_are_kept_until_one_changes(tmp_path: Path) -> None:
    folder, album = tmp_path / "mine", tmp_path / "kept" / "album"
    folder.mkdir()
    for name in "abc":
        picture(folder / f"{name}.png", (255, 0, 0))
        (folder / f"{name}.txt").write_text(name)
    first = read_pictures(folder, 4, album)
    assert isinstance(first.pixels, np.memmap)
    made = album.with_name("album.u8").stat().st_mtime_ns
    assert (read_captioned(folder, 4, album).pixels == first.pixels).all()
    assert album.with_name("album.u8").stat().st_mtime_ns == made
    picture(folder / "b.png", (0, 0, 255))
    os.utime(folder / "b.png", ns=(1, 1))
    assert read_pictures(folder, 4, album).pixels[1, 0, 0].tolist() == [0, 0, 255]
    assert read_pictures(folder, 8, album).pixels.shape == (3, 8, 8, 3)
    album.with_name("album.u8").write_bytes(b"cut off")
    assert read_pictures(folder, 8, album).pixels.shape == (3, 8, 8, 3)
    assert sorted(path.name for path in album.parent.iterdir()) == ["album.json", "album.lock", "album.u8"]


def test_pictures_without_captions_are_for_the_tokenizer_alone(tmp_path: Path) -> None:
    folder, album = tmp_path / "mine", tmp_path / "kept" / "album"
    folder.mkdir()
    for name, colour in {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}.items():
        picture(folder / f"{name}.png", colour)
    (folder / "captions.tsv").write_text("c.png\tblue\n")
    every = read_pictures(folder, 4, album)
    assert [thing.name for thing in every.things] == ["c", "a", "b"]
    given = read_captioned(folder, 4, album)
    assert given.words == [["blue"]]
    assert (given.pixels == every.pixels[:1]).all()


def test_one_picture_at_least_is_held_out_and_none_is_both(tmp_path: Path) -> None:
    for count in (2, 3, 60):
        picture(tmp_path / f"{count}.png", (0, 0, 0))
        for i in range(count):
            picture(tmp_path / f"x{i}.png", (i, 0, 0))
        found = read_pictures(tmp_path, 4, tmp_path / "kept" / "album")
        assert 1 <= len(found.held_out) <= max(1, count // 6)
        assert sorted([*found.held_out, *found.train]) == list(range(len(found.pixels)))


def test_fewer_pictures_than_a_batch_are_refused_before_any_is_read(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"x{i}.png").write_bytes(b"no picture")
    with pytest.raises(FolderError, match=r"4 pictures, 3 without those held out .* fewer than the 4 of a batch"):
        read_pictures(tmp_path, 4, tmp_path / "kept" / "album", least=4)


def test_small_pictures_are_told_a_few_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(7):
        picture(tmp_path / f"x{i}.png", (0, 0, 0), (6, 9))
    read_pictures(tmp_path, 8, tmp_path / "kept" / "album")
    told = capsys.readouterr().err
    assert "x0.png: 6 pixels, enlarged to 8x8" in told
    assert "2 more are smaller than 8 pixels" in told


def test_all_that_cannot_be_read_are_told_at_once_and_the_album_before_them_stays(tmp_path: Path) -> None:
    folder, album = tmp_path / "mine", tmp_path / "kept" / "album"
    folder.mkdir()
    for i in range(3):
        picture(folder / f"a{i}.png", (i, 0, 0))
    before = read_pictures(folder, 4, album).pixels.copy()
    for i in range(7):
        (folder / f"b{i}.png").write_bytes(b"no picture")
    with pytest.raises(FolderError) as told:
        read_pictures(folder, 4, album)
    assert [f"b{i}.png" in str(told.value) for i in range(7)] == [True] * 5 + [False] * 2
    assert "2 more cannot be read" in str(told.value)
    for i in range(7):
        (folder / f"b{i}.png").unlink()
    made = album.with_name("album.u8").stat().st_mtime_ns
    assert (read_pictures(folder, 4, album).pixels == before).all()
    assert album.with_name("album.u8").stat().st_mtime_ns == made


def test_an_album_is_made_by_one_training_at_a_time(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (255, 0, 0))
    picture(tmp_path / "b.png", (255, 0, 0))
    album = tmp_path / "kept" / "album"
    album.parent.mkdir()
    found: list[object] = []
    with album.with_name("album.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = threading.Thread(target=lambda: found.append(read_pictures(tmp_path, 4, album)))
        other.start()
        other.join(0.2)
        assert not found
        assert not album.with_name("album.json").exists()
    other.join()
    assert len(found) == 1


def test_grey_of_sixteen_bits_stays_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 128 * 257], [64 * 257, 255 * 257]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(read_square(tmp_path / "a.png"))[..., 0].tolist() == [[0, 128], [64, 255]]


def test_a_very_long_caption_is_cut_below_its_picture_without_being_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    of_font = ImageFont.FreeTypeFont.getlength

    def getlength(font: ImageFont.FreeTypeFont, text: str) -> float:
        measured.append(len(text))
        return of_font(font, text)

    monkeypatch.setattr(ImageFont.FreeTypeFont, "getlength", getlength)
    save_sheet(tmp_path / "sheet.png", np.zeros((1, 32, 32, 3), np.uint8), 1, ["word " * 2000])
    assert max(measured) == 32


def test_a_name_in_no_encoding_and_a_long_name_are_names(tmp_path: Path) -> None:
    folder = tmp_path / ("ю" * 120)
    folder.mkdir()
    for name in (b"k\xe4tzchen.png", b"tab\there.png"):
        picture(folder / os.fsdecode(name), (0, 0, 0))
    album = tmp_path / "kept" / shared_album(folder, 4).name
    assert len(read_pictures(folder, 4, album).things) == 2
    assert album.with_name(f"{album.name}.u8").stat().st_size == 2 * 4 * 4 * 3


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png", (0, 0, 0))
    picture(tmp_path / "b.png", (0, 0, 0))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2 * 4 * 4 * 3 - 1))
    with pytest.raises(FolderError, match=r"0\.0 GB are free, and the pictures take 0\.0 GB"):
        read_pictures(tmp_path, 4, tmp_path / "kept" / "album")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["album.lock"]
