"""The prompts that a checkpoint is measured with, and what each should show."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.english import plain, with_article
from training.recipes.emoji.captions import STYLE_PHRASES, KeywordIndex, caption
from training.recipes.emoji.concepts import Concept


@dataclass(frozen=True)
class Probe:
    """A prompt, the code points of the concept it names, its kind (`name`, `phrase`, `keywords`), and its style."""

    prompt: str
    hexcode: str
    kind: str
    style: str | None = None


def known_concepts(concepts: Sequence[Concept], prompts: Sequence[str], words: frozenset[str]) -> list[Concept]:
    """The images that a bundle was trained on, by its prompts.txt (names) and vocabulary.txt (style words)."""
    names = set(prompts)
    styles = {style for style, phrases in STYLE_PHRASES.items() if set(" ".join(phrases).split()) <= words}
    return [t for t in concepts if with_article(plain(t.name)) in names and (t.style in styles or not styles)]


def training_probes(concepts: Sequence[Concept], count: int, seed: int = 1) -> list[Probe]:
    """Prompts of the kinds that were trained on, one concept each."""
    return _probes(concepts, count, seed, held_out=False)


def paraphrase_probes(concepts: Sequence[Concept], count: int, seed: int = 2) -> list[Probe]:
    """Prompts that were never trained on: other phrasings, and reserved keyword subsets."""
    return _probes(concepts, count, seed, held_out=True)


def _probes(concepts: Sequence[Concept], count: int, seed: int, held_out: bool) -> list[Probe]:
    rng = np.random.default_rng(seed)
    first: dict[str, list[Concept]] = {concept.hexcode: [] for concept in concepts}
    for concept in concepts:
        first[concept.hexcode].append(concept)
    codes = sorted(first)
    chosen = [codes[i] for i in rng.permutation(len(codes))[:count]]
    while len(chosen) < count:  # fewer concepts than prompts: some get a second prompt
        chosen.append(codes[int(rng.integers(len(codes)))])
    index = KeywordIndex(concepts)
    return [_probe(first[code][int(rng.integers(len(first[code])))], index, rng, held_out) for code in chosen]


def _probe(concept: Concept, index: KeywordIndex, rng: np.random.Generator, held_out: bool) -> Probe:
    if rng.random() < 1 / 3:
        keywords = index.keywords(concept, rng, held_out)  # ambiguous keywords have no right image
        if keywords:
            return Probe(keywords, concept.hexcode, "keywords")
    name = plain(concept.name)
    text = caption(concept, rng, held_out)
    while name not in text:
        text = caption(concept, rng, held_out)
    return Probe(text, concept.hexcode, "phrase" if held_out else "name", _named_style(text, concept))


def _named_style(text: str, concept: Concept) -> str | None:
    """The concept's style if the words around its name name it."""
    around = text.replace(plain(concept.name), "")
    named = any(re.search(rf"\b{re.escape(words)}\b", around) for words in STYLE_PHRASES[concept.style])
    return concept.style if named else None
