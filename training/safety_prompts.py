"""Prompts with the policies they break, made from a small grammar; knows nothing of networks.

Every slot's fillers and every policy's patterns are split: most are trained on, the rest are kept for measuring. Each
policy has innocent neighbours (the same words where nothing is wrong with them), so that a word alone does not decide.
"""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.captions import with_article

POLICIES = ("dangerous_content", "harassment", "hate_speech", "sexually_explicit")
GRAMMAR = tomllib.loads(Path(__file__).with_name("safety_grammar.toml").read_text())
LEET = {"a": "@4", "e": "3", "i": "1!", "o": "0", "s": "$5", "t": "7"}


@dataclass(frozen=True)
class Example:
    """A prompt, the policies it breaks (none: it is safe), and what it was made of."""

    prompt: str
    policies: frozenset[str]
    kind: str


def kept_back(text: str, share: int = 5) -> bool:
    """Whether a pattern, filler or word is kept for measuring: one in `share`, by its hash."""
    return hashlib.sha256(f"safety {text}".encode()).digest()[0] % share == 0


class Grammar:
    """Fills patterns, either from the training share of patterns, fillers and words or from the kept share."""

    def __init__(
        self, bad: dict[str, str], safe_texts: Sequence[str], rng: np.random.Generator, held_out: bool
    ) -> None:
        def chosen(texts: Sequence[str]) -> list[str]:
            return [text for text in texts if kept_back(text) == held_out] or list(texts)

        self.rng = rng
        self.slots = {name: chosen(fillers) for name, fillers in GRAMMAR["slots"].items()}
        self.slots["view"] = GRAMMAR["slots"]["view"]
        self.unsafe = {policy: chosen(patterns) for policy, patterns in GRAMMAR["unsafe"].items()}
        self.safe = chosen(GRAMMAR["safe"])
        self.bad = {word: policy for word, policy in bad.items() if kept_back(word) == held_out}
        self.bad_list = list(self.bad)
        self.safe_texts = list(safe_texts)

    def bad_word(self) -> Example:
        """A word from the lists in a short prompt."""
        word = self._pick(self.bad_list)
        text = self._fill(self._pick(GRAMMAR["bad_word"]).replace("{bad}", word))
        return Example(text, frozenset({self.bad[word]}), "word")

    def violation(self) -> Example:
        """A sentence that breaks a policy by what it says."""
        policy = self._pick(POLICIES)
        text = self._pick(self.slots["view"]) + self._fill(self._pick(self.unsafe[policy]))
        if self.rng.random() < 0.15:
            text = f"{text} and {self._pick(self.safe_texts)}"
        return Example(text, frozenset({policy}), "sentence")

    def neighbour(self) -> Example:
        """An innocent sentence with words that unsafe ones use."""
        text = self._pick(self.slots["view"]) + self._fill(self._pick(self.safe))
        return Example(text, frozenset(), "neighbour")

    def ordinary(self) -> Example:
        """What people ask for: captions, names, words."""
        text = self._pick(self.safe_texts)
        if self.rng.random() < 0.3:
            text = f"{text} {self._pick(('and', 'with', 'next to', 'on top of'))} {self._pick(self.safe_texts)}"
        view = self._pick(self.slots["view"]) if self.rng.random() < 0.3 else ""
        return Example(view + text, frozenset(), "ordinary")

    def _fill(self, pattern: str) -> str:
        def filler(match: re.Match[str]) -> str:
            return self._pick(self.safe_texts) if match[1] == "thing" else self._pick(self.slots[match[1]])

        text = re.sub(r"\{(\w+)\}", filler, pattern)
        return with_article(text[2:]) if text.startswith("a ") else text

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self.rng.integers(len(choices)))]


def disguised(text: str, rng: np.random.Generator) -> str:
    """A prompt as someone would write it to get past a filter: leet, capitals, stretched or spaced letters."""
    way = int(rng.integers(4))
    if way == 0:
        signs = [LEET.get(c, c) if rng.random() < 0.6 else c for c in text]
        return "".join(choice[int(rng.integers(len(choice)))] for choice in signs)
    if way == 1:
        return "".join(c.upper() if rng.random() < 0.5 else c for c in text)
    words = text.split(" ")
    spot = int(rng.integers(len(words)))
    if way == 2:
        words[spot] = (" ", ".", "-")[int(rng.integers(3))].join(words[spot])
    else:
        words[spot] = "".join(c * (3 if c in "aeiou" and rng.random() < 0.5 else 1) for c in words[spot])
    return " ".join(words)
