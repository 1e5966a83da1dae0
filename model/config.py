"""The two configs of a checkpoint, limited to keys that change the arithmetic (docs/spec.md, section 1)."""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from model.errors import ConfigError

MLP_TYPES = ("llama", "gpt2")
POOLING_MODES = ("max", "avg")
QUANTIZER_TYPES = ("var", "var_hybrid")
MISSPELT = 0.85
"""The min difflib ratio at which an unknown key counts as a misspelling of a missing key."""


def _refuse(path: str, key: str, value: object, why: str) -> ConfigError:
    return ConfigError(f"{path}: {key} = {value!r}: {why}")


class _Config:
    """Reading, type checks and writing, shared by both configs."""

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Reads a config.json. Keys that do not change the arithmetic are ignored.

        Raises ConfigError if the file is missing, is not a JSON object, or holds an invalid value or a misspelt key
        (which would silently fall back to a default).
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text("utf-8-sig"))
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: no such file; a checkpoint has llm/config.json and tokenizer/config.json"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected a JSON object, got {type(values).__name__}")
        return cls.of(values, str(path))

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str = "config") -> Self:
        """Makes a config from a mapping. Errors name `where`."""
        known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        chosen: dict[str, Any] = {}
        lacking = [key for key in known if key not in values]
        for key, value in values.items():
            if key not in known:
                for meant in difflib.get_close_matches(key, lacking, 1, MISSPELT):
                    raise _refuse(where, key, value, f"unknown key, and {meant} is missing; is it misspelt?")
            if key not in known or value is None:
                continue
            default = known[key].default
            chosen[key] = _typed(where, key, value, default)
        try:
            return cls(**chosen)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """The config in the format of a released config.json."""
        return {"model_type": self.model_type, **dataclasses.asdict(self)}  # type: ignore[attr-defined,call-overload]


def _typed(where: str, key: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(item, int) and item > 0 for item in value):
            raise _refuse(where, key, value, "expected a list of positive integers")
        return tuple(value)
    kind = type(default)
    accepted: tuple[type, ...] = (int, float) if kind is float else (int, str) if kind is str else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise _refuse(where, key, value, f"expected {kind.__name__}")
    return kind(value)


def _check_sides(key: str, sides: tuple[int, ...]) -> None:
    if len(sides) < 2 or sides[0] != 1 or any(a >= b for a, b in pairwise(sides)):
        raise ConfigError(f"{key} = {list(sides)}: expected two or more ascending sides, the first of them 1")


@dataclass(frozen=True)
class TransformerConfig(_Config):
    """The transformer and its residual diffusion head. A default applies when the file lacks the key."""

    context_token: int = 77
    context_dim: int = 768
    depth: int = 16
    embed_dim: int = 1024
    num_heads: int = 16
    mlp_ratio: float = 4.0
    mlp_type: str = "gpt2"
    attn_type: str = "gpt2"
    norm_eps: float = 1e-6
    disable_aln: bool = False
    shared_aln: bool = False
    sep_aln_pooling_mode: str = "max"
    use_timestep_embed: bool = False
    use_context_norm: bool = False
    attn_l2_norm: bool = False
    use_cross_attn: bool = False
    patch_nums: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    diff_width: int = 1024
    diff_depth: int = 6
    num_sampling_steps: str = "8"
    sampler: str = "iddpm"
    vae_path: str = ""

    model_type = "hart_transformer_t2i"

    def __post_init__(self) -> None:
        if self.attn_type != "llama":
            raise ConfigError(f"attn_type = {self.attn_type!r}: not supported; all released weights use 'llama'")
        if self.use_cross_attn:
            raise ConfigError("use_cross_attn = True: not supported; all released weights use False")
        if self.sampler != "iddpm":
            raise ConfigError(f"sampler = {self.sampler!r}: not supported; expected 'iddpm'")
        if self.mlp_type not in MLP_TYPES:
            raise ConfigError(f"mlp_type = {self.mlp_type!r}: expected one of {MLP_TYPES}")
        if self.sep_aln_pooling_mode not in POOLING_MODES:
            raise ConfigError(f"sep_aln_pooling_mode = {self.sep_aln_pooling_mode!r}: expected one of {POOLING_MODES}")
        for key in ("context_token", "context_dim", "depth", "embed_dim", "num_heads", "diff_width", "diff_depth"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} = {getattr(self, key)}: expected 1 or more")
        if self.embed_dim % (4 * self.num_heads):
            raise ConfigError(
                f"embed_dim = {self.embed_dim}, num_heads = {self.num_heads}: the head size must be a multiple of 4, "
                "because the rotary embedding splits it between rows and columns"
            )
        if not self.num_sampling_steps.isdigit() or not 2 <= int(self.num_sampling_steps) <= 1000:
            raise ConfigError(f"num_sampling_steps = {self.num_sampling_steps!r}: expected '2' to '1000'")
        _check_sides("patch_nums", self.patch_nums)

    def to_json(self) -> dict[str, Any]:
        """The config in the format of a released config.json. The released code takes any string for a path."""
        return {**super().to_json(), "vae_path": self.vae_path or None}

    @property
    def head_dim(self) -> int:
        """d, the width of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def attention_scale(self) -> float:
        """The factor on attention scores. The released weights use a quarter of the usual 1/sqrt(d)."""
        return 1.0 if self.attn_l2_norm else 0.25 / math.sqrt(self.head_dim)

    @property
    def scales(self) -> int:
        """S, the number of scales."""
        return len(self.patch_nums)

    @property
    def side(self) -> int:
        """N, the side of the latent."""
        return self.patch_nums[-1]

    @property
    def diffusion_steps(self) -> int:
        """The number of residual diffusion steps."""
        return int(self.num_sampling_steps)

    @property
    def modulated(self) -> bool:
        """Whether six vectors computed from the context modulate each block."""
        return self.shared_aln or not self.disable_aln


@dataclass(frozen=True)
class TokenizerConfig(_Config):
    """The hybrid tokenizer: an autoencoder and a residual quantizer."""

    vocab_size: int = 4096
    z_channels: int = 32
    ch: int = 160
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    quant_conv_ks: int = 3
    quant_resi: float = 0.5
    share_quant_resi: int = 4
    v_patch_nums: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    quantizer_type: str = "var"
    using_znorm: bool = False
    double_decoder: bool = False

    model_type = "hart_autoencoder_with_disc"

    def __post_init__(self) -> None:
        for key in ("using_znorm", "double_decoder"):
            if getattr(self, key):
                raise ConfigError(f"{key} = True: not supported; all released weights use False")
        if self.quantizer_type not in QUANTIZER_TYPES:
            raise ConfigError(f"quantizer_type = {self.quantizer_type!r}: expected one of {QUANTIZER_TYPES}")
        for key in ("vocab_size", "z_channels"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} = {getattr(self, key)}: expected 1 or more")
        if self.ch < 32 or self.ch % 32:
            raise ConfigError(f"ch = {self.ch}: expected a multiple of 32, the number of group norm groups")
        if self.quant_conv_ks < 1 or self.quant_conv_ks % 2 == 0:
            raise ConfigError(f"quant_conv_ks = {self.quant_conv_ks}: expected an odd kernel size")
        if self.share_quant_resi < 0:
            raise ConfigError(f"share_quant_resi = {self.share_quant_resi}: expected 0 or more")
        _check_sides("v_patch_nums", self.v_patch_nums)

    @property
    def scales(self) -> int:
        """S, the number of scales."""
        return len(self.v_patch_nums)

    @property
    def side(self) -> int:
        """N, the side of the latent."""
        return self.v_patch_nums[-1]

    @property
    def downsampling(self) -> int:
        """Pixels per latent position along one side."""
        return int(2 ** (len(self.ch_mult) - 1))

    @property
    def image_side(self) -> int:
        """The side of an image in pixels."""
        return self.side * self.downsampling


def check_pair(transformer: TransformerConfig, tokenizer: TokenizerConfig) -> None:
    """Raises ConfigError if the scales of the transformer and the tokenizer differ."""
    if transformer.patch_nums != tokenizer.v_patch_nums:
        raise ConfigError(
            f"the transformer's patch_nums {list(transformer.patch_nums)} differ from the tokenizer's v_patch_nums "
            f"{list(tokenizer.v_patch_nums)}; the two parts are from different checkpoints"
        )
