"""training.recipes.emoji.images: pinned, deterministic, resumable, one split; on a tiny art set."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.data import packages
from training.data.image_set import is_held_out
from training.data.packages import Package, PackageError
from training.recipes.emoji import images
from training.recipes.emoji.icons import icon_svg, read_emoji, strip_selector
from training.recipes.emoji.images import SIDES, build_style, load_images, pack_style
from training.recipes.emoji.packages import PACKAGES, fetch
from training.recipes.emoji.render import on_white, render_svg, without_white
from training.tokenizer.train import SCALES

RED_DISC = '<circle cx="16" cy="16" r="12" fill="#ff0000"/>'
LEFT_BAR = '<rect x="0" y="8" width="8" height="16" fill="#0000ff"/>'


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache in which the packages are already unpacked: four emoji, one without art, one a flag."""
    names = tmp_path / "packages" / PACKAGES["names"].folder_name / "package"
    art = tmp_path / "packages" / PACKAGES["flat"].folder_name / "package"
    for folder in (names / "meta", names / "en", art):
        folder.mkdir(parents=True)
    groups = {"groups": {"0": "symbols", "9": "flags"}, "subgroups": {"0": "geometric"}}
    (names / "meta/groups.json").write_text(json.dumps(groups))
    entries = [
        {"label": "red circle", "hexcode": "1F534", "tags": ["red", "round"], "group": 0, "subgroup": 0, "order": 2},
        {"label": "Blue Bar", "hexcode": "25AE-FE0F", "tags": [], "group": 0, "subgroup": 0, "order": 1},
        {"label": "mirrored bar", "hexcode": "25AF", "tags": [], "group": 0, "subgroup": 0, "order": 3},
        {"label": "nothing", "hexcode": "25B0", "tags": [], "group": 0, "subgroup": 0, "order": 4},
        {"label": "a flag", "hexcode": "1F3F3", "tags": [], "group": 9, "subgroup": 0, "order": 5},
        {"label": "regional indicator A", "hexcode": "1F1E6"},
    ]
    (names / "en/data.json").write_text(json.dumps(entries))
    icons = {"red": {"body": RED_DISC}, "bar": {"body": LEFT_BAR}, "empty": {"body": ""}, "flag": {"body": RED_DISC}}
    aliases = {"bar-right": {"parent": "bar", "hFlip": True}}
    (art / "icons.json").write_text(json.dumps({"icons": icons, "aliases": aliases, "width": 32, "height": 32}))
    chars = {"1f534": "red", "25ae": "bar", "25af-fe0f": "bar-right", "25b0": "empty", "1f3f3": "flag"}
    (art / "chars.json").write_text(json.dumps(chars))
    return tmp_path


def test_emoji_are_in_order_without_flags_and_selectors(cache: Path) -> None:
    emoji = read_emoji(cache)
    assert [e.name for e in emoji.values()] == ["blue bar", "red circle", "mirrored bar", "nothing"]
    assert strip_selector("2764-FE0F-200D-1F525") == "2764-200d-1f525"


def test_a_style_is_built_with_its_index_and_loads_as_it_was_rendered(cache: Path) -> None:
    build_style("flat", 32, cache)
    art = load_images(32, ("flat",), cache)
    assert [t.name for t in art.concepts] == ["blue bar", "red circle", "mirrored bar"]  # the blank one is left out
    assert art.pixels.shape == (3, 32, 32, 3)
    assert tuple(art.pixels[1][16, 16]) == (255, 0, 0)
    assert tuple(art.pixels[1][0, 0]) == (255, 255, 255)
    assert art.alpha[1][16, 16] == 255
    assert art.alpha[1][0, 0] == 0
    np.testing.assert_array_equal(art.pixels[2], art.pixels[0][:, ::-1])  # the alias is flipped


def test_a_built_style_is_not_built_again_and_a_broken_build_leaves_nothing(cache: Path) -> None:
    index = build_style("flat", 32, cache)
    before = index.stat().st_mtime_ns
    assert build_style("flat", 32, cache).stat().st_mtime_ns == before
    index.with_suffix(".u8").unlink()
    (cache / "packages" / PACKAGES["flat"].folder_name / "package/icons.json").write_text("{")
    with pytest.raises(ValueError, match="property name"):
        build_style("flat", 32, cache)
    assert not index.with_suffix(".u8").exists()


def test_packs_travel_without_the_raw_files(cache: Path) -> None:
    index = build_style("flat", 32, cache)
    original = np.array(load_images(32, ("flat",), cache).pixels)
    pack_style(index, piece_bytes=150)
    pieces = json.loads(index.read_text())["pieces"]
    assert len(pieces) > 1
    for suffix in (".u8", ".alpha.u8"):
        index.with_suffix(suffix).unlink()
    unpacked = load_images(32, ("flat",), cache).pixels
    assert np.abs(unpacked.astype(int) - original).mean() < 3


def test_the_split_is_by_concept_and_complete(cache: Path) -> None:
    build_style("flat", 32, cache)
    art = load_images(32, ("flat",), cache)
    assert sorted([*art.train, *art.held_out]) == [0, 1, 2]
    for i in art.held_out:
        assert is_held_out(art.concepts[i].hexcode)
    share = np.mean([is_held_out(f"{code:x}") for code in range(0x1F300, 0x1FA00)])
    assert 0.03 < share < 0.07


def test_an_unknown_style_or_a_missing_build_is_named(cache: Path) -> None:
    with pytest.raises(ValueError, match="'pixel' is unknown"):
        load_images(32, ("pixel",), cache)
    with pytest.raises(FileNotFoundError, match=r"python -m training\.recipes\.emoji\.images --side 32"):
        load_images(32, ("flat",), cache)


def test_a_changed_archive_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "other.tgz"
    archive.write_bytes(b"not what was pinned")
    monkeypatch.setattr(packages, "_download", lambda package, into: archive)
    monkeypatch.setitem(PACKAGES, "flat", Package("some", "1.0.0", "AAAA", "MIT", "nobody"))
    with pytest.raises(PackageError, match=r"some@1\.0\.0: sha512 is .*, pinned is AAAA"):
        fetch("flat", tmp_path)


def test_taking_the_white_out_and_laying_it_under_again_is_the_same_picture() -> None:
    pixels = render_svg(icon_svg({"icons": {"red": {"body": RED_DISC}}, "width": 32, "height": 32}, "red") or "", 48)
    white = on_white(pixels)
    again = on_white(without_white(white, pixels[..., 3]))
    assert np.abs(again.astype(int) - white).max() <= 2


def test_a_side_that_no_tokenizer_can_learn_is_refused_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images, "build_style", lambda *_: pytest.fail("built"))
    monkeypatch.setattr("sys.argv", ["images", "--side", "100"])
    with pytest.raises(SystemExit) as ended:
        images.main()
    assert ended.value.code == 2
    assert "--side: invalid choice: 100 (choose from 128, 256, 512, 1024)" in capsys.readouterr().err
    assert set(SIDES) == set(SCALES)
