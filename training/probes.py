"""The prompts that a checkpoint is measured with, and what each should show; knows nothing of networks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.captions import STYLE_PHRASES, Telling, captions, plain, with_article
from training.data import Thing


@dataclass(frozen=True)
class Probe:
    """A prompt, the code points of the thing that it asks for, how it asks (`name`, `phrase` or `keywords`), and the
    style that it names, if any."""

    prompt: str
    hexcode: str
    kind: str
    style: str | None = None


def known_things(things: Sequence[Thing], prompts: Sequence[str], words: frozenset[str]) -> list[Thing]:
    """The pictures that a bundle was trained on, by its prompts.txt (names) and vocabulary.txt (style words)."""
    names = set(prompts)
    styles = {style for style, phrases in STYLE_PHRASES.items() if set(" ".join(phrases).split()) <= words}
    return [t for t in things if with_article(plain(t.name)) in names and (t.style in styles or not styles)]


def training_probes(things: Sequence[Thing], count: int, seed: int = 1) -> list[Probe]:
    """Prompts of the kinds that were trained on, one thing each."""
    return _probes(things, count, seed, held_out=False)


def paraphrase_probes(things: Sequence[Thing], count: int, seed: int = 2) -> list[Probe]:
    """Prompts that were never trained on: other phrasings, and keyword subsets that were kept back."""
    return _probes(things, count, seed, held_out=True)


def _probes(things: Sequence[Thing], count: int, seed: int, held_out: bool) -> list[Probe]:
    rng = np.random.default_rng(seed)
    first: dict[str, list[Thing]] = {thing.hexcode: [] for thing in things}
    for thing in things:
        first[thing.hexcode].append(thing)
    codes = sorted(first)
    chosen = [codes[i] for i in rng.permutation(len(codes))[:count]]
    while len(chosen) < count:  # fewer things than prompts: some are asked for again, in other words
        chosen.append(codes[int(rng.integers(len(codes)))])
    telling = Telling(things)
    return [_probe(first[code][int(rng.integers(len(first[code])))], telling, rng, held_out) for code in chosen]


def _probe(thing: Thing, telling: Telling, rng: np.random.Generator, held_out: bool) -> Probe:
    if rng.random() < 1 / 3:
        keywords = telling.keywords(thing, rng, held_out)  # nobody could say what the right picture is for others
        if keywords:
            return Probe(keywords, thing.hexcode, "keywords")
    name = plain(thing.name)
    text = captions(thing, rng, held_out)
    while name not in text:
        text = captions(thing, rng, held_out)
    return Probe(text, thing.hexcode, "phrase" if held_out else "name", _named_style(text, thing))


def _named_style(text: str, thing: Thing) -> str | None:
    """The thing's style if the words around its name name it."""
    around = text.replace(plain(thing.name), "")
    named = any(re.search(rf"\b{re.escape(words)}\b", around) for words in STYLE_PHRASES[thing.style])
    return thing.style if named else None
