"""training.data: folders of images, their cache on disk, and the errors of folders that cannot be used."""

import fcntl
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFont

from training.core.sample_grid import save_sample_grid
from training.data.folder import FolderError, read_square
from training.data.image_cache import read_captioned, read_images, shared_cache


def picture(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (8, 8)) -> None:
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(path)


def test_pictures_with_captions_beside_them(tmp_path: Path) -> None:
    picture(tmp_path / "b.png", (0, 0, 255))
    picture(tmp_path / "a.png", (255, 0, 0, 0), (16, 8))
    (tmp_path / "a.txt").write_text("nothing\n\nreally nothing\n")
    (tmp_path / "b.txt").write_text("a blue square")
    found = read_captioned(tmp_path, 4, tmp_path / "kept" / "cache")
    assert found.pixels.shape == (2, 4, 4, 3)
    assert (found.pixels[0] == 255).all()  # transparent is white
    assert (found.pixels[1] == [0, 0, 255]).all()
    assert found.captions == [["nothing", "really nothing"], ["a blue square"]]


def test_a_table_of_captions(tmp_path: Path) -> None:
    picture(tmp_path / "x.png", (0, 255, 0))
    (tmp_path / "captions.tsv").write_text("x.png\ta green square\nx.png\tgreen\n")
    assert read_captioned(tmp_path, 8, tmp_path / "kept" / "cache").captions == [["a green square", "green"]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no images"),
        ({"a.png": None}, "a.png: no caption; expected a.txt"),
        ({"a.png": None, "a.txt": "  \n"}, "a.txt: empty"),
        ({"a.png": b"no picture", "a.txt": "words"}, "a.png: cannot be read as an image"),
        ({"captions.tsv": "gone.png\twords\n"}, "line 1: gone.png: no such image"),
        ({"a.png": None, "captions.tsv": "a.png words\n"}, "line 1: expected a file name, a tab"),
        ({"a.png": None, "captions.tsv": b"a.png\tk\xe4tzchen\n"}, "captions.tsv: not UTF-8 text"),
        ({"a.png": None, "captions.tsv": 'a.png\t"never closed\n'}, "captions.tsv: not a tab-separated table"),
        ({"a.png": None, "a.txt": b"k\xe4tzchen"}, "a.txt: not UTF-8 text"),
    ],
)
def test_an_unusable_folder_names_the_file(tmp_path: Path, files: dict[str, object], message: str) -> None:
    for name, content in files.items():
        if content is None:
            picture(tmp_path / name, (0, 0, 0))
        elif isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            (tmp_path / name).write_text(str(content))
    with pytest.raises(FolderError, match=message):
        read_captioned(tmp_path, 8, tmp_path / "kept" / "cache")


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.paste("blue", (0, 0, 8, 4))
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    pixels = read_images(tmp_path, 8, tmp_path / "kept" / "cache", min_train=0).pixels
    assert pixels[0, 0, 0].tolist() == [255, 0, 0]
    assert pixels[0, 7, 7].tolist() == [0, 0, 255]


def test_pictures_are_kept_until_one_changes(tmp_path: Path) -> None:
    folder, cache = tmp_path / "mine", tmp_path / "kept" / "cache"
    folder.mkdir()
    for name in "abc":
        picture(folder / f"{name}.png", (255, 0, 0))
        (folder / f"{name}.txt").write_text(name)
    first = read_images(folder, 4, cache)
    assert isinstance(first.pixels, np.memmap)
    made = cache.with_name("cache.u8").stat().st_mtime_ns
    assert (read_captioned(folder, 4, cache).pixels == first.pixels).all()
    assert cache.with_name("cache.u8").stat().st_mtime_ns == made
    picture(folder / "b.png", (0, 0, 255))
    os.utime(folder / "b.png", ns=(1, 1))
    assert read_images(folder, 4, cache).pixels[1, 0, 0].tolist() == [0, 0, 255]
    assert read_images(folder, 8, cache).pixels.shape == (3, 8, 8, 3)
    cache.with_name("cache.u8").write_bytes(b"cut off")
    assert read_images(folder, 8, cache).pixels.shape == (3, 8, 8, 3)
    assert sorted(path.name for path in cache.parent.iterdir()) == ["cache.json", "cache.lock", "cache.u8"]


def test_pictures_without_captions_are_for_the_tokenizer_alone(tmp_path: Path) -> None:
    folder, cache = tmp_path / "mine", tmp_path / "kept" / "cache"
    folder.mkdir()
    for name, colour in {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}.items():
        picture(folder / f"{name}.png", colour)
    (folder / "captions.tsv").write_text("c.png\tblue\n")
    every = read_images(folder, 4, cache)
    assert [pixel.tolist() for pixel in every.pixels[:, 0, 0]] == [[0, 0, 255], [255, 0, 0], [0, 255, 0]]
    given = read_captioned(folder, 4, cache)
    assert given.captions == [["blue"]]
    assert (given.pixels == every.pixels[:1]).all()


def test_one_picture_at_least_is_held_out_and_none_is_both(tmp_path: Path) -> None:
    for count in (2, 3, 60):
        picture(tmp_path / f"{count}.png", (0, 0, 0))
        for i in range(count):
            picture(tmp_path / f"x{i}.png", (i, 0, 0))
        found = read_images(tmp_path, 4, tmp_path / "kept" / "cache")
        assert 1 <= len(found.held_out) <= max(1, count // 6)
        assert sorted([*found.held_out, *found.train]) == list(range(len(found.pixels)))


def test_fewer_pictures_than_a_batch_are_refused_before_any_is_read(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"x{i}.png").write_bytes(b"no picture")
    with pytest.raises(FolderError, match=r"4 images, 3 without those held out .* fewer than the 4 of a batch"):
        read_images(tmp_path, 4, tmp_path / "kept" / "cache", min_train=4)


def test_some_small_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(7):
        picture(tmp_path / f"x{i}.png", (0, 0, 0), (6, 9))
    read_images(tmp_path, 8, tmp_path / "kept" / "cache")
    printed = capsys.readouterr().err
    assert "x0.png: 6 pixels, enlarged to 8x8" in printed
    assert "2 more are smaller than 8 pixels" in printed


def test_all_unreadable_images_are_named_at_once_and_the_cache_stays(tmp_path: Path) -> None:
    folder, cache = tmp_path / "mine", tmp_path / "kept" / "cache"
    folder.mkdir()
    for i in range(3):
        picture(folder / f"a{i}.png", (i, 0, 0))
    before = read_images(folder, 4, cache).pixels.copy()
    for i in range(7):
        (folder / f"b{i}.png").write_bytes(b"no picture")
    with pytest.raises(FolderError) as raised:
        read_images(folder, 4, cache)
    assert all(f"b{i}.png: cannot be read" in str(raised.value) for i in range(7))
    for i in range(7):
        (folder / f"b{i}.png").unlink()
    made = cache.with_name("cache.u8").stat().st_mtime_ns
    assert (read_images(folder, 4, cache).pixels == before).all()
    assert cache.with_name("cache.u8").stat().st_mtime_ns == made


def test_an_cache_is_made_by_one_training_at_a_time(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (255, 0, 0))
    picture(tmp_path / "b.png", (255, 0, 0))
    cache = tmp_path / "kept" / "cache"
    cache.parent.mkdir()
    found: list[object] = []
    with cache.with_name("cache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = threading.Thread(target=lambda: found.append(read_images(tmp_path, 4, cache)))
        other.start()
        other.join(0.2)
        assert not found
        assert not cache.with_name("cache.json").exists()
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
    save_sample_grid(tmp_path / "sheet.png", np.zeros((1, 32, 32, 3), np.uint8), 1, ["word " * 2000])
    assert max(measured) == 32


def test_a_name_in_no_encoding_and_a_long_name_are_names(tmp_path: Path) -> None:
    folder = tmp_path / ("ю" * 120)
    folder.mkdir()
    for name in (b"k\xe4tzchen.png", b"tab\there.png"):
        picture(folder / os.fsdecode(name), (0, 0, 0))
    cache = tmp_path / "kept" / shared_cache(folder, 4).name
    assert len(read_images(folder, 4, cache).pixels) == 2
    assert cache.with_name(f"{cache.name}.u8").stat().st_size == 2 * 4 * 4 * 3


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png", (0, 0, 0))
    picture(tmp_path / "b.png", (0, 0, 0))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2 * 4 * 4 * 3 - 1))
    with pytest.raises(FolderError, match=r"0\.0 GB are free, and the images take 0\.0 GB"):
        read_images(tmp_path, 4, tmp_path / "kept" / "cache")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["cache.lock"]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def test_every_fault_of_a_folder_is_named_at_once_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", ".hidden"):
        picture(tmp_path / f"{name}.png", (0, 0, 0))
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.txt").write_text("c")
    (tmp_path / "d.txt").write_bytes(b"k\xe4tzchen")
    (tmp_path / "e.png").write_bytes(b"no image")
    (tmp_path / "e.txt").write_text("e")
    (tmp_path / "f.png").write_bytes(POINTER)
    (tmp_path / "f.txt").write_bytes(POINTER)
    with pytest.raises(FolderError) as raised:
        read_captioned(tmp_path, 8, tmp_path / "kept" / "cache")
    assert [line.partition(": ")[0] for line in str(raised.value).splitlines()] == [
        str(tmp_path / name) for name in ("a.png", "b.txt", "d.txt", "f.txt", "e.png", "f.png")
    ]
    assert str(raised.value).count("this is a Git LFS pointer: run git lfs pull") == 2


def test_every_fault_of_a_table_and_its_images_is_named_at_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (0, 0, 0))
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "captions.tsv").write_text("a.png\ta\nb.png\tb\nc.png\tc\na.png\n")
    with pytest.raises(FolderError) as raised:
        read_captioned(tmp_path, 8, tmp_path / "kept" / "cache")
    faults = str(raised.value).splitlines()
    assert len(faults) == 3
    assert "line 3: c.png: no such image" in faults[0]
    assert "line 4: expected a file name" in faults[1]
    assert "b.png: cannot be read as an image" in faults[2]
