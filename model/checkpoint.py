"""A checkpoint folder in the released layout, and the parts of the model that it holds (docs/spec.md, section 1)."""

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

from common import digests
from common.stages import AR_GENERATOR, DECODER, TEXT_ENCODER
from kernels.choose import triton_is_installed
from model import weights
from model.config import TokenizerConfig, TransformerConfig, check_pair
from model.errors import CheckpointError, SettingError
from model.generation import SamplingParams
from model.quantizer import Quantizer
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from model.safety import SafetyClassifier
    from model.text import TextEncoder

log = logging.getLogger(__name__)

IGNORED = ("lvl_1L", "attn_bias_for_masking", "*.zero_k_bias")
TOKENIZER_IGNORED = ("disc.*", "vae.quantize.ema_vocab_hit_SV")
TOKENIZER_PREFIX = "vae."
DEFAULTS_FILE = "generation.json"
BUNDLED = Path(__file__).resolve().parent.parent / "checkpoints"


def bundled() -> Path:
    """The folder of the bundled checkpoint."""
    folders = sorted(path for path in BUNDLED.glob("*") if path.is_dir())
    if not folders:
        raise CheckpointError(f"{BUNDLED}: no checkpoint is bundled; name a folder that holds one")
    return folders[-1]


@dataclass(frozen=True)
class Checkpoint:
    """Where the parts lie. Nothing is loaded until asked for."""

    llm: Path
    tokenizer: Path
    text_encoder: Path
    safety: Path

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """A model folder, or its `llm`. Raises CheckpointError where there is none."""
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; expected one that holds a checkpoint")
        is_llm = (folder / "config.json").exists() and not (folder / "llm").is_dir()
        root = folder.resolve().parent if is_llm else folder
        llm = folder if is_llm else folder / "llm"
        if not llm.is_dir() and not any((root / part).is_dir() for part in ("tokenizer", "text_encoder", "safety")):
            raise CheckpointError(
                f"{folder}: no checkpoint; none of the folders llm/, tokenizer/, text_encoder/, safety/ is in it"
            )
        tokenizer = root / "tokenizer"
        if (llm / "config.json").exists():
            named = TransformerConfig.read(llm / "config.json").vae_path
            tokenizer = (llm / named).resolve() if named else tokenizer
        return cls(llm, tokenizer, root / "text_encoder", root / "safety")

    @property
    def name(self) -> str:
        """The folder's name: what a request chooses the model by."""
        return self.llm.resolve().parent.name

    @cached_property
    def transformer_config(self) -> TransformerConfig:
        """Of `llm`. Raises ConfigError."""
        return TransformerConfig.read(self.llm / "config.json")

    @cached_property
    def tokenizer_config(self) -> TokenizerConfig:
        """Of `tokenizer`. Raises ConfigError."""
        return TokenizerConfig.read(self.tokenizer / "config.json")

    def load_transformer(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Transformer:
        """The transformer with the EMA weights, in eval mode."""
        config, pictures = self.transformer_config, self.tokenizer_config
        check_pair(config, pictures)
        with torch.device("meta"):
            network = Transformer(config, pictures.vocab_size, pictures.z_channels)
        source, passed_over = weights.find(self.llm, "ema_model")
        if passed_over:
            log.warning("%s is used, not %s beside it", source.path, ", ".join(path.name for path in passed_over))
        weights.fill(
            network,
            source,
            rename=lambda name: name,
            ignore=IGNORED,
            dtype=dtype,
            device=torch.device(device),
            float32=network.keep_float32(),
        )
        return network.eval()

    def load_tokenizer(
        self,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        parts: tuple[str, ...] = ("encoder", "quant_conv", "quantize", "post_quant_conv", "decoder"),
    ) -> HybridTokenizer:
        """The hybrid tokenizer in eval mode; parts that are not named are left out and take no memory.

        The quantizer is float32 in every precision: errors in the latent add up over the scales.
        """
        with torch.device("meta"):
            tokenizer = HybridTokenizer(self.tokenizer_config)
        for name, _ in list(tokenizer.named_children()):
            if name not in parts:
                delattr(tokenizer, name)
        stem = "model" if any(self.tokenizer.glob("model.safetensors*")) else "pytorch_model"
        source, _ = weights.find(self.tokenizer, stem)

        def rename(name: str) -> str | None:
            if not name.startswith(TOKENIZER_PREFIX):
                return name  # reported as unexpected
            key = name.removeprefix(TOKENIZER_PREFIX)
            known = key.partition(".")[0] in HybridTokenizer.PARTS
            return None if known and key.partition(".")[0] not in parts else key

        wide = (tokenizer.quantize,) if "quantize" in parts else ()
        weights.fill(
            tokenizer,
            source,
            rename=rename,
            ignore=TOKENIZER_IGNORED,
            dtype=dtype,
            device=torch.device(device),
            float32=wide,
        )
        if "decoder" in parts and (torch.device(device).type == "cpu" or triton_is_installed()):
            # A quarter faster on a CPU; torch's group norm on a GPU wants channels first, ours has them last.
            tokenizer.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return tokenizer.eval()

    def load_quantizer(self, device: torch.device | str = "cpu") -> Quantizer:
        """The codebook and its convolutions alone: all that generation needs of the tokenizer."""
        return self.load_tokenizer(torch.float32, device, parts=("quantize",)).quantize

    def load_text_encoder(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> "TextEncoder":
        """The text model, with as many slots as the transformer has for context."""
        from model.text import TextEncoder  # here, since transformers takes seconds to import: most parts do without

        encoder = TextEncoder.load(self.text_encoder, self.transformer_config.context_token, device, dtype)
        if encoder.width != self.transformer_config.context_dim:
            raise CheckpointError(
                f"{self.text_encoder}: hidden_size is {encoder.width}, but the transformer's context_dim is "
                f"{self.transformer_config.context_dim}; the two belong to different checkpoints"
            )
        return encoder

    def load_safety(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> "SafetyClassifier":
        """The safety model with its policies. Raises CheckpointError."""
        from model.safety import SafetyClassifier  # here for the same reason

        return SafetyClassifier.load(self.safety, device, dtype)

    def known_prompts(self) -> list[str]:
        """Prompts that the checkpoint is known to draw well; empty where it lists none."""
        return self._text_of("prompts.txt").splitlines()

    def vocabulary(self) -> Vocabulary:
        """Words that the checkpoint was trained on; without any where it does not say."""
        return Vocabulary(frozenset(self._text_of("vocabulary.txt").split()))

    @cached_property
    def sampling_defaults(self) -> SamplingParams:
        """What `generation.json` beside the parts says; the released model's values where there is no such file.

        Raises CheckpointError naming the file and the field.
        """
        text = self._text_of(DEFAULTS_FILE)
        return _sampling_defaults(text, self.llm.resolve().parent / DEFAULTS_FILE) if text else SamplingParams()

    def _text_of(self, file: str) -> str:
        """A text file beside the parts; empty where there is none."""
        path = self.llm.resolve().parent / file
        try:
            return path.read_text("utf-8-sig") if path.exists() else ""
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path}: not UTF-8 text: {error}") from None

    def digest_of(self, part: str) -> str:
        """SHA-256 over the files of one part: 'llm', 'tokenizer', 'text_encoder' or 'safety'."""
        return digest_of_folder(getattr(self, part))

    @cached_property
    def digest(self) -> str:
        """What a picture depends on besides its prompt, seed and settings: the drawing parts' digests in one."""
        return digests.combine(
            generator=self.digest_of(AR_GENERATOR.part),
            text_encoder=self.digest_of(TEXT_ENCODER.part),
            decoder=self.digest_of(DECODER.part),
        )


def _sampling_defaults(text: str, path: Path) -> SamplingParams:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    kinds = {field.name: type(field.default) for field in dataclasses.fields(SamplingParams)}
    if not isinstance(given, dict) or given.keys() - kinds:
        raise CheckpointError(f"{path}: expected an object with some of {', '.join(kinds)}, not {text.strip()[:200]}")
    for name, value in given.items():
        if isinstance(value, bool) != (kinds[name] is bool) or not isinstance(value, int | float):
            raise CheckpointError(f"{path}: {name}: {value!r}: expected a {kinds[name].__name__}")
    try:
        return SamplingParams(**given)
    except SettingError as error:
        raise CheckpointError(f"{path}: {error}") from None


def digest_of_folder(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files, in hex."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                total.update(f"{path.name}={hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
