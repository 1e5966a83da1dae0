"""A checkpoint's training vocabulary, and the words of a prompt outside it."""

import re
import unicodedata
from dataclasses import dataclass

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class Vocabulary:
    """The words that a checkpoint was trained on."""

    known: frozenset[str]
    """In lower case; empty if the checkpoint has no vocabulary file."""

    def unfamiliar(self, prompt: str) -> list[str]:
        """The prompt's unknown words, in lower case, without duplicates; empty if `known` is empty.

        A compound such as "hot-dog" is known if all its parts are. A pictograph counts as a word.
        """
        if not self.known:
            return []
        words = WORD.findall(prompt.lower().replace("’", "'"))
        pictographs = [sign for sign in prompt if unicodedata.category(sign) == "So"]
        return [word for word in dict.fromkeys([*words, *pictographs]) if not self._familiar(word)]

    def _familiar(self, word: str) -> bool:
        return word in self.known or all(part in self.known for part in word.split("-"))
