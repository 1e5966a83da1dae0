"""Words for pictures; knows nothing of networks.

`captions(thing, rng)` phrases one thing in one of many ways; with `held_out=True` it uses templates and keyword
subsets that training never uses, for the paraphrases of the evaluation. A function of `rng` alone.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from training.data import Thing

STYLE_PHRASES = {
    "flat": ("flat", "flat style", "flat colors"),
    "noto": ("noto", "noto style"),
    "twemoji": ("twemoji", "twemoji style"),
    "color": ("glossy", "glossy style", "gradient colors"),
    "3d": ("3d", "3d style", "three-dimensional"),
    "blob": ("blob", "blob style"),
}
# A prompt that names no style asks for this one, not for the average of six; it is named now and then all the same.
USUAL_STYLE, USUAL_NAMED = "flat", 0.4
OPENERS = (
    "draw",
    "paint",
    "make",
    "make me",
    "create",
    "generate",
    "design",
    "give me",
    "let me have",
    "i want",
    "i need",
    "i'd love",
    "we want",
    "we are looking for",
    "could you draw",
    "can you paint",
    "please draw",
    "please make",
    "imagine",
    "here is",
)
MEDIA = (
    "picture",
    "image",
    "icon",
    "photo",
    "painting",
    "cartoon",
    "sticker",
    "symbol",
    "graphic",
    "rendering",
    "doodle",
    "emoji",
    "poster",
    "logo",
)
QUALITIES = ("simple", "cute", "nice", "pretty", "beautiful", "clear", "lovely", "single", "funny", "sweet", "plain")
TAILS = (
    " on a white background",
    " in the middle",
    " for me",
    " for my website",
    " for the kids",
    ", nothing else",
    ", high quality",
    ", very detailed",
    ", please",
)
HELD_OUT_TEMPLATES = (
    "a drawing of {a name}",
    "a drawing of {a name}",
    "please show me {a name}",
    "an illustration of {a name}",
    "{name} clip art",
    "i would like to see {a name}",
    "a cute little sketch showing {a name}",
)
KEYWORD_SHARE = 0.3
# One keyword subset in three is never trained on.
RESERVED = 3
MASS = re.compile(
    "butter|bread|rice|cheese|honey|water|fire|fog|sake|bacon|garlic|ginger|broccoli|corn|soap|ice|luggage|mahjong|"
    "cricket|badminton|tennis|volleyball|basketball|baseball|music|money|sushi|tofu|sunrise|sunset"
)
DECORATION = {ord("’"): "'", ord("‘"): "'", ord("“"): "", ord("”"): "", ord("&"): " and ", ord(":"): ","}


def plain(text: str) -> str:
    """Lower case, ASCII, straight quotes, no decoration: what the text encoder's own normaliser makes of it."""
    text = text.lower().translate(DECORATION)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", text).strip()


def with_article(name: str) -> str:
    """`red heart` -> `a red heart`; plural and mass nouns stay bare."""
    head = re.split(r",| with | in | on | of ", name)[0].split(" ")[-1]
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is", "'s"))
    if plural or MASS.fullmatch(head) or name.split(" ")[0] in ("a", "an", "the", "no", "mx", "mrs"):
        return name
    return f"{'an' if name[0] in 'aeiou' and not name.startswith(('uni', 'one', 'eu', 'ufo')) else 'a'} {name}"


def pluralised(name: str) -> str:
    """`red heart` -> `red hearts`, by the regular rules alone."""
    if name.endswith(("s", "x", "ch", "sh")):
        return f"{name}es" if not name.endswith("s") or name.endswith("ss") else name
    return f"{name[:-1]}ies" if name.endswith("y") and name[-2] not in "aeiou" else f"{name}s"


def keyword_subset(thing: Thing, rng: np.random.Generator, held_out: bool) -> str | None:
    """Two to four of a thing's tags, from the training or the reserved share of subsets; None if it has too few."""
    tags = sorted({plain(tag) for tag in thing.tags if re.fullmatch(r"[a-z][a-z' -]+", plain(tag))})
    if len(tags) < 2:
        return None
    for _ in range(12):
        count = min(len(tags), int(rng.integers(2, 5)))
        chosen = [tags[i] for i in rng.permutation(len(tags))[:count]]
        if _is_reserved(chosen) == held_out:
            return (" " if rng.random() < 0.5 else ", ").join(chosen)
    return None


class Telling:
    """Which words of a set of things fit one of them alone: keywords that fit several ask for none of them."""

    def __init__(self, things: Sequence[Thing]) -> None:
        self._carriers: dict[str, set[str]] = {}
        for thing in things:
            for word in plain(" ".join((thing.name, *thing.tags))).replace(",", "").split():
                self._carriers.setdefault(word, set()).add(thing.hexcode)

    def keywords(self, thing: Thing, rng: np.random.Generator, held_out: bool) -> str | None:
        """A keyword subset that fits no other thing; None if ten draws find none."""
        for _ in range(10):
            keywords = keyword_subset(thing, rng, held_out)
            if keywords is None:
                return None
            words = keywords.replace(",", "").split()
            if set.intersection(*(self._carriers.get(word, set()) for word in words)) == {thing.hexcode}:
                return keywords
        return None


def _is_reserved(tags: Sequence[str]) -> bool:
    return hashlib.sha256("|".join(sorted(tags)).encode()).digest()[0] % RESERVED == 0


def captions(thing: Thing, rng: np.random.Generator, held_out: bool = False, telling: Telling | None = None) -> str:
    """One caption of a thing in lower case: words around its name, or keywords; see the module's docstring.

    With `telling` keywords fit this thing alone.
    """
    if rng.random() < (1 / 3 if held_out else KEYWORD_SHARE):
        subset = telling.keywords if telling else keyword_subset
        keywords = subset(thing, rng, held_out)
        if keywords is not None:
            return _maybe_styled(keywords, thing, rng)
    name = plain(thing.name)
    if held_out:
        return _maybe_styled(_filled(_pick(HELD_OUT_TEMPLATES, rng), name), thing, rng)
    return phrased(name, style_words(thing, rng), rng)


def phrased(name: str, style: str | None, rng: np.random.Generator) -> str:
    """A name as people ask for it: bare, or with an opener, a medium, a quality and a tail; `style` somewhere in it."""

    def maybe(choices: Sequence[str], share: float) -> str:
        return _pick(choices, rng) if rng.random() < share * wordy else ""

    wordy = float(rng.random() < 0.7)  # the rest says the name and the style alone
    place = _pick(("front", "medium", "end"), rng) if style else ""
    quality, medium, opener, tail = maybe(QUALITIES, 0.25), maybe(MEDIA, 0.6), maybe(OPENERS, 0.4), maybe(TAILS, 0.2)
    text = " ".join(word for word in (style if place == "front" else quality, name) if word)
    if medium and place != "medium" and rng.random() < 0.25:
        text, medium = f"{text} {medium}", ""
    text = with_article(text) if medium or rng.random() < 0.75 else text
    if medium or place == "medium":
        kind = f"{style} {medium or _pick(MEDIA, rng)}" if place == "medium" else medium
        text = f"{with_article(kind)} of {text}"
    text = f"{opener} {text}{tail}".strip()
    return f"{text}{_pick((', ', ' in '), rng)}{style}" if place == "end" else text


def style_words(thing: Thing, rng: np.random.Generator) -> str | None:
    """What a caption calls the thing's style; None where it is the usual one and goes without saying."""
    if thing.style == USUAL_STYLE and rng.random() >= USUAL_NAMED:
        return None
    return _pick(STYLE_PHRASES[thing.style], rng)


def plainest(thing: Thing) -> str:
    """The caption that says the least: its name, and its style if that is not the usual one."""
    name = plain(thing.name)
    return name if thing.style == USUAL_STYLE else f"{name}, {STYLE_PHRASES[thing.style][0]}"


def _maybe_styled(text: str, thing: Thing, rng: np.random.Generator) -> str:
    style = style_words(thing, rng)
    return f"{text}, {style}" if style else text


def _filled(template: str, name: str) -> str:
    return template.replace("{a name}", with_article(name)).replace("{name}", name)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
