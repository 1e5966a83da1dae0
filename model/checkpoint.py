"""Loads the parts of a model from a checkpoint folder in the released layout (docs/spec.md, section 1)."""

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

import torch

from common import digests, git_lfs
from common.stages import AR_GENERATOR, DECODER, TEXT_ENCODER
from kernels.choose import triton_is_installed
from model import weights
from model.config import TokenizerConfig, TransformerConfig, check_pair
from model.errors import CheckpointError, SettingError
from model.params import SamplingParams
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
PARTS = ("llm", "tokenizer", "text_encoder", "safety")
TRANSFORMER_STEM = "ema_model"
TOKENIZER_STEMS = ("model", "pytorch_model")
MAX_DEPTH = 3
"""How many folders deep `open` searches for the checkpoint that it names in an error."""
BUNDLED = Path(__file__).resolve().parent.parent / "checkpoints"


def bundled() -> Path:
    """The folder of the bundled checkpoint. Raises CheckpointError if there is none."""
    folders = sorted(path for path in BUNDLED.glob("*") if path.is_dir())
    if not folders:
        raise CheckpointError(f"{BUNDLED}: no bundled checkpoint; name a checkpoint folder")
    return folders[-1]


@dataclass(frozen=True)
class Checkpoint:
    """The folders of a checkpoint's parts. Weights are read only by the `load_` methods."""

    llm: Path
    tokenizer: Path
    text_encoder: Path
    safety: Path

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Opens a model folder, or its `llm` folder. Raises CheckpointError if it is neither."""
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; expected a checkpoint folder")
        is_llm = (folder / "config.json").exists() and not (folder / "llm").is_dir()
        root = folder.resolve().parent if is_llm else folder
        llm = folder if is_llm else folder / "llm"
        if not llm.is_dir() and not any((root / part).is_dir() for part in PARTS):
            listed = ", ".join(f"{part}/" for part in PARTS)
            raise CheckpointError(f"{folder}: not a checkpoint; none of the folders {listed} is in it{_nearby(folder)}")
        if is_llm and folder.resolve().name != "llm" and folder.resolve().name in PARTS and (root / "llm").is_dir():
            raise CheckpointError(f"{folder}: one part of a checkpoint; name the whole folder, {root}")
        _require_whole(root, llm)
        tokenizer = root / "tokenizer"
        if (llm / "config.json").exists():
            named = TransformerConfig.read(llm / "config.json").vae_path
            tokenizer = (llm / named).resolve() if named else tokenizer
        return cls(llm, tokenizer, root / "text_encoder", root / "safety")

    @property
    def name(self) -> str:
        """The folder's name. Requests select the model by it."""
        return self.llm.resolve().parent.name

    @cached_property
    def transformer_config(self) -> TransformerConfig:
        """The config of `llm`. Raises ConfigError."""
        return TransformerConfig.read(self.llm / "config.json")

    @cached_property
    def tokenizer_config(self) -> TokenizerConfig:
        """The config of `tokenizer`. Raises ConfigError."""
        return TokenizerConfig.read(self.tokenizer / "config.json")

    def load_transformer(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Transformer:
        """The transformer with its EMA weights, in eval mode. Raises CheckpointError, ConfigError."""
        self._require_whole(self.llm, self.tokenizer)
        config, tokenizer = self.transformer_config, self.tokenizer_config
        check_pair(config, tokenizer)
        with weights.on_meta():
            network = Transformer(config, tokenizer.vocab_size, tokenizer.z_channels)
        source, unused = weights.find(self.llm, TRANSFORMER_STEM)
        if unused:
            log.warning("%s is used, not %s in the same folder", source.path, ", ".join(path.name for path in unused))
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
        """The hybrid tokenizer in eval mode. Only the named parts are built and loaded.

        The quantizer is float32 in every precision, because errors in the latent accumulate over the scales.
        Raises CheckpointError, ConfigError.
        """
        self._require_whole(self.tokenizer)
        with weights.on_meta():
            tokenizer = HybridTokenizer(self.tokenizer_config)
        for name, _ in list(tokenizer.named_children()):
            if name not in parts:
                delattr(tokenizer, name)
        source, _ = weights.find(self.tokenizer, *TOKENIZER_STEMS)

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
            # 25% faster on a CPU. On a GPU torch's group norm requires channels first, the kernel here channels last.
            tokenizer.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return tokenizer.eval()

    def load_quantizer(self, device: torch.device | str = "cpu") -> Quantizer:
        """The codebook and its convolutions: the only part of the tokenizer that generation uses."""
        return self.load_tokenizer(torch.float32, device, parts=("quantize",)).quantize

    def load_text_encoder(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> "TextEncoder":
        """The text model with the transformer's number of context slots. Raises CheckpointError."""
        from model.text import TextEncoder  # a late import: transformers takes seconds, and most parts do not use it

        self._require_whole(self.text_encoder, self.llm)
        encoder = TextEncoder.load(self.text_encoder, self.transformer_config.context_token, device, dtype)
        if encoder.width != self.transformer_config.context_dim:
            raise CheckpointError(
                f"{self.text_encoder}: hidden_size is {encoder.width}, but the transformer's context_dim is "
                f"{self.transformer_config.context_dim}; the two parts are from different checkpoints"
            )
        return encoder

    def load_safety(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> "SafetyClassifier":
        """The safety model with its policies. Raises CheckpointError."""
        from model.safety import SafetyClassifier  # a late import for the same reason

        self._require_whole(self.safety)
        return SafetyClassifier.load(self.safety, device, dtype)

    def _require_whole(self, *needed: Path) -> None:
        """Raises CheckpointError if a needed folder has Git LFS pointers; the message names those of every part."""
        if git_lfs.pointers(needed):
            _refuse_pointers([self.llm, self.tokenizer, self.text_encoder, self.safety], self.llm.resolve().parent)

    def known_prompts(self) -> list[str]:
        """Example prompts from `prompts.txt`; empty without that file."""
        return self._text_of("prompts.txt").splitlines()

    def vocabulary(self) -> Vocabulary:
        """The training vocabulary from `vocabulary.txt`; empty without that file."""
        return Vocabulary(frozenset(self._text_of("vocabulary.txt").split()))

    @cached_property
    def sampling_defaults(self) -> SamplingParams:
        """Sampling defaults from `generation.json`, or the released model's defaults without that file.

        Raises CheckpointError that names the file and the field.
        """
        text = self._text_of(DEFAULTS_FILE)
        return _sampling_defaults(text, self.llm.resolve().parent / DEFAULTS_FILE) if text else SamplingParams()

    def _text_of(self, file: str) -> str:
        """The content of a text file in the model folder; empty if there is no such file."""
        path = self.llm.resolve().parent / file
        if path.exists() and git_lfs.is_pointer(path):
            raise CheckpointError(f"{path}: {git_lfs.ADVICE}")
        try:
            return path.read_text("utf-8-sig") if path.exists() else ""
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path}: not UTF-8 text: {error}") from None

    def digest_of(self, part: str) -> str:
        """SHA-256 of the files of one part: 'llm', 'tokenizer', 'text_encoder' or 'safety'."""
        return digest_of_folder(getattr(self, part))

    @cached_property
    def digest(self) -> str:
        """The combined digest of the parts that determine an image, besides its prompt, seed and parameters."""
        return digests.combine(
            generator=self.digest_of(AR_GENERATOR.part),
            text_encoder=self.digest_of(TEXT_ENCODER.part),
            decoder=self.digest_of(DECODER.part),
        )


def _nearby(folder: Path) -> str:
    """Text for an error: the checkpoints inside or around a folder that is none; empty if there are none."""
    inside = sorted(
        path.parent
        for depth in range(1, MAX_DEPTH + 1)
        for path in folder.glob("*/" * depth + "llm")
        if path.is_dir() and not path.parent.is_symlink()
    )
    around = [path for path in folder.resolve().parents[:MAX_DEPTH] if (path / "llm" / "config.json").exists()]
    found = [*inside, *around][:3]
    return f"; did you mean {' or '.join(map(str, found))}?" if found else ""


def _require_whole(root: Path, llm: Path) -> None:
    """Raises CheckpointError if the transformer's config, which `open` reads, is a Git LFS pointer."""
    config = llm / "config.json"
    if config.is_file() and git_lfs.is_pointer(config):
        _refuse_pointers([llm, *(root / part for part in PARTS[1:])], root)


def _refuse_pointers(folders: list[Path], root: Path) -> NoReturn:
    lines = [f"{path}: {git_lfs.ADVICE}" for path in git_lfs.pointers([*folders, root])]
    raise CheckpointError("\n".join(lines))


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
    """SHA-256 over the names and contents of a folder's files, in hex. Subfolders are not included."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                total.update(f"{path.name}={hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
