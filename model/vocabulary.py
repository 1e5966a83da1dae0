"""The words that a checkpoint was trained on, and which words of a prompt are none of them. Knows no tensors."""

import re
import unicodedata
from dataclasses import dataclass

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class Vocabulary:
    """A checkpoint's words."""

    known: frozenset[str]
    """In lower case; empty where the checkpoint does not say."""

    def unfamiliar(self, prompt: str) -> list[str]:
        """The prompt's words that are not known, in lower case, each once; none where the checkpoint does not say.

        A compound such as "hot-dog" is familiar where all its parts are. A pictograph is a word of its own.
        """
        if not self.known:
            return []
        words = WORD.findall(prompt.lower().replace("’", "'"))
        pictographs = [sign for sign in prompt if unicodedata.category(sign) == "So"]
        return [word for word in dict.fromkeys([*words, *pictographs]) if not self._familiar(word)]

    def _familiar(self, word: str) -> bool:
        return word in self.known or all(part in self.known for part in word.split("-"))
