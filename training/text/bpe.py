"""The text encoder's tokenizer: Qwen2's, with a small vocabulary trained on captions.

transformers loads the tokenizer of any Qwen2 model as a `Qwen2Tokenizer`, whatever its tokenizer.json says: byte-level
BPE after NFC and Qwen2's own pre-tokenizer, case-sensitive. So this is one. Capitals equal small letters nevertheless:
in the vocabulary `A` has the id of `a`, and merges go by ids.
"""

import json
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

PAD = "<pad>"


def train_bpe(texts: Iterable[str], size: int = 4096) -> Qwen2Tokenizer:
    """A tokenizer of at most `size` ids, right padding, without special tokens but the pad (id 0)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _blank().backend_tokenizer.pre_tokenizer
    small = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(string.ascii_uppercase))
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD], initial_alphabet=small, limit_alphabet=len(small), show_progress=False
    )
    tokenizer.train_from_iterator((text.lower() for text in texts), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return _blank(vocab=_with_capitals(model["vocab"]), merges=merges)


def id_count(tokenizer: Qwen2Tokenizer) -> int:
    """How many ids there are: fewer than entries, since capitals share theirs."""
    return max(tokenizer.get_vocab().values()) + 1


def save_bpe(tokenizer: Qwen2Tokenizer, folder: Path, context_tokens: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json, and restores the capitals, which `save_pretrained` drops."""
    tokenizer.model_max_length = context_tokens
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"] |= {"vocab": tokenizer._vocab, "merges": [list(merge) for merge in tokenizer._merges]}
    path.write_text(json.dumps(content, ensure_ascii=False))


def _blank(**parts: Any) -> Qwen2Tokenizer:
    specials = dict.fromkeys(("unk_token", "eos_token", "pad_token"), PAD)
    return Qwen2Tokenizer(**{"vocab": {PAD: 0}, **parts}, **specials, add_prefix_space=True, padding_side="right")


def _with_capitals(vocabulary: dict[str, int]) -> dict[str, int]:
    lower = {small.upper(): vocabulary[small] for small in string.ascii_lowercase if small in vocabulary}
    capitals = {letter: vocabulary.get(letter, vocabulary.get(letter.lower(), 0)) for letter in string.ascii_uppercase}
    return {**vocabulary, **capitals, **lower}
