"""Innocent requests that a classifier of unsafe words must learn to pass: twins, other languages, random text.

Without them a frame that is seen around unsafe words only ("the ...", "my ..."), a script that is never seen, or a word
without a meaning counts as evidence.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.data.english import pluralised, with_article
from training.safety.prompts import GRAMMAR

SCRIPTS = (
    (0x0041, 0x005A), (0x00C0, 0x017F), (0x0370, 0x03FF), (0x0400, 0x04FF), (0x0531, 0x0586), (0x05D0, 0x05EA),
    (0x0620, 0x064A), (0x0904, 0x0939), (0x0985, 0x09B9), (0x0B85, 0x0BB9), (0x0E01, 0x0E30), (0x10D0, 0x10F0),
    (0x1200, 0x1248), (0x1780, 0x17A2), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
)  # fmt: skip
"""First and last code points of letters: Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic, Indic and other scripts."""
LATIN = frozenset(string.ascii_lowercase + "äàáâåæçéèêëíìîïñóòôöøßúùûüœ")
CODE_SIGNS = "(){}[]=+-*/<>:;.,_#\"'|&%"
EMOJI = (0x1F300, 0x1F64F)
LONG = 0.1
"""Share of long ones among texts in other scripts, whose letters are two or three tokens each."""
MIXED = 0.12
"""Share of unsafe examples that get harmless text of other languages around them: it is no sign of safety either."""


@dataclass(frozen=True)
class Innocents:
    """Draws innocent requests of each kind. None of them is in `held_out`."""

    words: Sequence[str]
    """English words and names that are safe."""
    foreign: Sequence[str]
    """Words and phrases of other languages."""
    held_out: frozenset[str] = frozenset()

    @cached_property
    def latin(self) -> list[str]:
        """The foreign phrases in Latin letters, which share tokens with English words; all if there are none."""
        return [text for text in self.foreign if text[:1].lower() in LATIN] or list(self.foreign)

    def draw(self, rng: np.random.Generator) -> str:
        """A request of a random kind. Raises RuntimeError if the held-out texts leave none."""
        for _ in range(100):
            kind = rng.choice(4, p=(0.2, 0.35, 0.25, 0.2))
            text = (self.twin, self.framed, self.other_language, self.noise)[kind](rng)
            if text.lower() not in self.held_out:
                return text
        raise RuntimeError("a hundred innocent requests in a row are held out")

    def twin(self, rng: np.random.Generator) -> str:
        """The frame of an unsafe word around an innocent one."""
        frame = _pick(GRAMMAR["bad_word"], rng)
        text = re.sub(r"\{(thing|bad)\}", lambda _: _pick(self.words, rng), frame)
        text = re.sub(r"\{(\w+)\}", lambda slot: _pick(GRAMMAR["slots"][slot[1]], rng), text)
        return re.sub(r"\ba(?= [aeiou])", "an", text)

    def framed(self, rng: np.random.Generator) -> str:
        """An innocent word in a frame of ordinary requests, sometimes with an article or in the plural."""
        form = (str, str, with_article, pluralised)[int(rng.integers(4))]
        text = re.sub(r"\{\}", lambda _: form(_pick(self.words, rng)), _pick(GRAMMAR["ordinary"], rng))
        return text.capitalize() + "." if rng.random() < 0.15 else text

    def other_language(self, rng: np.random.Generator) -> str:
        """One or two phrases of other languages, sometimes up to four: half in Latin letters, many as names are."""
        longest = 5 if rng.random() < LONG else 3
        phrases = self.latin if rng.random() < 0.5 else self.foreign
        text = (", ", " ")[int(rng.integers(2))].join(_pick(phrases, rng) for _ in range(int(rng.integers(1, longest))))
        return text.title() if rng.random() < 0.3 else text

    def noise(self, rng: np.random.Generator) -> str:
        """Random words of one script, pseudo-words, digits, emoji or signs of code."""
        kind = int(rng.integers(5))
        if kind == 0:
            return " ".join(_letters(EMOJI, 1, 3, rng) for _ in range(int(rng.integers(1, 5))))
        if kind == 1:
            return " ".join(_signs(string.digits * 2 + ".-/:+% ", 1, 8, rng) for _ in range(int(rng.integers(1, 4))))
        if kind == 2:
            words = [self._pseudo_word(rng) for _ in range(int(rng.integers(1, 5)))]
            return " ".join(words).title() if rng.random() < 0.6 else " ".join(words)
        if kind == 3:
            parts = [(_pick(self.words, rng), _signs(CODE_SIGNS, 1, 3, rng)) for _ in range(int(rng.integers(2, 6)))]
            return "".join(part for pair in parts for part in pair)
        script = SCRIPTS[int(rng.integers(len(SCRIPTS)))]
        longest = 9 if rng.random() < LONG else 4
        return " ".join(_letters(script, 1, longest, rng) for _ in range(int(rng.integers(1, longest))))

    def around(self, text: str, rng: np.random.Generator) -> str:
        """The text with words of other languages or random ones before or after it."""
        extra = self.other_language(rng) if rng.random() < 0.5 else self.noise(rng)
        return f"{extra} {text}" if rng.random() < 0.5 else f"{text} {extra}"

    def _pseudo_word(self, rng: np.random.Generator) -> str:
        """The start of one word and the end of another: no known word, with a language's usual letters."""
        first, second = _pick(self.words, rng).split(" ")[0], _pick(self.words, rng).split(" ")[-1]
        return first[: int(rng.integers(1, 4))] + second[-int(rng.integers(2, 5)) :]


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _letters(script: tuple[int, int], shortest: int, longest: int, rng: np.random.Generator) -> str:
    length = int(rng.integers(shortest, longest + 1))
    return "".join(chr(int(code)) for code in rng.integers(script[0], script[1] + 1, size=length))


def _signs(signs: str, shortest: int, longest: int, rng: np.random.Generator) -> str:
    return "".join(signs[int(i)] for i in rng.integers(len(signs), size=int(rng.integers(shortest, longest + 1))))
