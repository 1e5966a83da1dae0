"""The text that a small text encoder is distilled on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Corpus:
    """Sentences to train on, and what is held out to measure with."""

    system_prompt: str
    """Stands before every prompt."""
    training: list[str]
    paraphrases: list[tuple[str, str]]
    """Held-out paraphrases, each with its concept's name."""
    general_words: list[str]
    """Words without an image that the training sentences contain."""
    unseen_words: list[str]
    """Words that they do not contain."""
