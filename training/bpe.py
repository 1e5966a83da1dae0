"""The text encoder's own tokenizer: byte-level BPE over lower-cased captions; knows nothing of networks."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD = "<pad>"


def train_bpe(texts: Iterable[str], size: int = 4096) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `size` entries, right padding, without special tokens but the pad (id 0)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("[‘’]"), "'"),
            normalizers.Replace(Regex('[“”"]'), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, padding_side="right")


def save_bpe(tokenizer: PreTrainedTokenizerFast, folder: Path, context_tokens: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json so that `AutoTokenizer` reads them as they are."""
    tokenizer.model_max_length = context_tokens
    tokenizer.save_pretrained(folder)
