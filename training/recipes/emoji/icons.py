"""Code points, names, tags and groups of emoji, and their icons by style."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.packages import CACHE
from training.recipes.emoji.packages import fetch

STYLES = ("flat", "noto", "twemoji", "color", "3d", "blob")
# These two sets ship an empty chars.json; their icons carry the same names as their sister set's.
SISTERS = {"color": "flat", "blob": "noto"}
FLAGS = 9  # Flags differ by a few pixels only: a small model learns nothing but look-alikes from 270 of them.


@dataclass(frozen=True)
class Emoji:
    """One emoji: lower-case name, search tags, group (e.g. `animals-nature`), subgroup, code points in hex."""

    hexcode: str
    name: str
    tags: tuple[str, ...]
    group: str
    subgroup: str


def strip_selector(hexcode: str) -> str:
    """Code points without the variation selector FE0F, which sources disagree about: `2764-FE0F` -> `2764`."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def read_emoji(cache: Path = CACHE) -> dict[str, Emoji]:
    """All emoji without flags and skin-tone variants, by stripped hexcode, in Unicode's own order."""
    folder = fetch("names", cache)
    meta = json.loads((folder / "meta/groups.json").read_text())
    entries = [e for e in json.loads((folder / "en/data.json").read_text()) if e.get("group", FLAGS) != FLAGS]
    found = {}
    for entry in sorted(entries, key=lambda e: e["order"]):
        code = strip_selector(entry["hexcode"])
        group, subgroup = meta["groups"][str(entry["group"])], meta["subgroups"][str(entry["subgroup"])]
        found[code] = Emoji(code, entry["label"].lower(), tuple(entry.get("tags", ())), group, subgroup)
    return found


def read_icons(style: str, cache: Path = CACHE) -> dict[str, str]:
    """Stripped hexcode -> square SVG text, for a style that comes as an iconify set."""
    folder = fetch(style, cache)
    icons = json.loads((folder / "icons.json").read_text())
    chars = json.loads((fetch(SISTERS.get(style, style), cache) / "chars.json").read_text())
    found: dict[str, str] = {}
    for code, name in chars.items():
        svg = icon_svg(icons, name)
        if svg is not None:
            found.setdefault(strip_selector(code), svg)
    return found


def icon_svg(icons: dict[str, Any], name: str) -> str | None:
    """The icon `name` of an iconify set as a square SVG with aliases resolved (parent, flips, quarter turns)."""
    aliases, bodies = icons.get("aliases", {}), icons["icons"]
    changes: list[dict[str, Any]] = []
    while name in aliases:
        changes.append(aliases[name])
        name = str(aliases[name]["parent"])
    if name not in bodies:
        return None
    icon = bodies[name]
    width, height = (float(icon.get(axis) or icons.get(axis) or 16) for axis in ("width", "height"))
    left, top = float(icon.get("left", 0)), float(icon.get("top", 0))
    side, x, y = max(width, height), left + width / 2, top + height / 2
    body = str(icon["body"])
    for change in reversed(changes):
        body = _transformed(body, change, x, y)
    box = f"{x - side / 2:g} {y - side / 2:g} {side:g} {side:g}"
    links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {links} viewBox="{box}">{body}</svg>'


def _transformed(body: str, change: dict[str, Any], x: float, y: float) -> str:
    turns = int(change.get("rotate", 0))
    across, down = (-1 if change.get("hFlip") else 1), (-1 if change.get("vFlip") else 1)
    if turns == 0 and across == down == 1:
        return body
    steps = f"translate({x:g} {y:g}) rotate({90 * turns}) scale({across} {down}) translate({-x:g} {-y:g})"
    return f'<g transform="{steps}">{body}</g>'
