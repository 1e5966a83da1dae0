"""Captions of concepts.

`captions(concept, rng)` phrases one concept in one of many ways; with `held_out=True` it uses templates and keyword
subsets that training never uses, for the evaluation's paraphrases. Deterministic in `rng`.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from training.data.english import plain, with_article
from training.recipes.emoji.concepts import Concept

STYLE_PHRASES = {
    "flat": ("flat", "flat style", "flat colors"),
    "noto": ("noto", "noto style"),
    "twemoji": ("twemoji", "twemoji style"),
    "color": ("glossy", "glossy style", "gradient colors"),
    "3d": ("3d", "3d style", "three-dimensional"),
    "blob": ("blob", "blob style"),
}
# A prompt that names no style means this one; a share of its captions names it all the same.
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


def keyword_subset(concept: Concept, rng: np.random.Generator, held_out: bool) -> str | None:
    """Two to four of a concept's tags, from the training or the reserved share of subsets; None if it has too few."""
    tags = sorted({plain(tag) for tag in concept.tags if re.fullmatch(r"[a-z][a-z' -]+", plain(tag))})
    if len(tags) < 2:
        return None
    for _ in range(12):
        count = min(len(tags), int(rng.integers(2, 5)))
        chosen = [tags[i] for i in rng.permutation(len(tags))[:count]]
        if _is_reserved(chosen) == held_out:
            return (" " if rng.random() < 0.5 else ", ").join(chosen)
    return None


class KeywordIndex:
    """Which words of a set of concepts match one of them alone: keywords that match several name none of them."""

    def __init__(self, concepts: Sequence[Concept]) -> None:
        self._carriers: dict[str, set[str]] = {}
        for concept in concepts:
            for word in plain(" ".join((concept.name, *concept.tags))).replace(",", "").split():
                self._carriers.setdefault(word, set()).add(concept.hexcode)

    def keywords(self, concept: Concept, rng: np.random.Generator, held_out: bool) -> str | None:
        """A keyword subset that matches no other concept; None if ten draws find none."""
        for _ in range(10):
            keywords = keyword_subset(concept, rng, held_out)
            if keywords is None:
                return None
            words = keywords.replace(",", "").split()
            if set.intersection(*(self._carriers.get(word, set()) for word in words)) == {concept.hexcode}:
                return keywords
        return None


def _is_reserved(tags: Sequence[str]) -> bool:
    return hashlib.sha256("|".join(sorted(tags)).encode()).digest()[0] % RESERVED == 0


def caption(
    concept: Concept, rng: np.random.Generator, held_out: bool = False, index: KeywordIndex | None = None
) -> str:
    """One caption of a concept in lower case: words around its name, or keywords; see the module's docstring.

    With an `index` keywords match this concept alone.
    """
    if rng.random() < (1 / 3 if held_out else KEYWORD_SHARE):
        subset = index.keywords if index else keyword_subset
        keywords = subset(concept, rng, held_out)
        if keywords is not None:
            return _maybe_styled(keywords, concept, rng)
    name = plain(concept.name)
    if held_out:
        return _maybe_styled(_filled(_pick(HELD_OUT_TEMPLATES, rng), name), concept, rng)
    return phrased(name, style_words(concept, rng), rng)


def captions_of(concepts: Sequence[Concept], variants: int, seed: int) -> list[list[str]]:
    """`variants` captions of each concept, the plainest first; keywords match no other of these concepts."""
    rng, index = np.random.default_rng(seed), KeywordIndex(concepts)
    return [
        [plainest(concept), *(caption(concept, rng, index=index) for _ in range(variants - 1))] for concept in concepts
    ]


def phrased(name: str, style: str | None, rng: np.random.Generator) -> str:
    """A name in a request: bare, or with an opener, a medium, a quality and a tail; `style` somewhere in it."""

    def maybe(choices: Sequence[str], share: float) -> str:
        return _pick(choices, rng) if rng.random() < share * wordy else ""

    wordy = float(rng.random() < 0.7)  # the rest is the name and the style alone
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


def style_words(concept: Concept, rng: np.random.Generator) -> str | None:
    """A phrase for the concept's style; mostly None for the usual one."""
    if concept.style == USUAL_STYLE and rng.random() >= USUAL_NAMED:
        return None
    return _pick(STYLE_PHRASES[concept.style], rng)


def plainest(concept: Concept) -> str:
    """The shortest caption: the name, and the style if it is not the usual one."""
    name = plain(concept.name)
    return name if concept.style == USUAL_STYLE else f"{name}, {STYLE_PHRASES[concept.style][0]}"


def _maybe_styled(text: str, concept: Concept, rng: np.random.Generator) -> str:
    style = style_words(concept, rng)
    return f"{text}, {style}" if style else text


def _filled(template: str, name: str) -> str:
    return template.replace("{a name}", with_article(name)).replace("{name}", name)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
