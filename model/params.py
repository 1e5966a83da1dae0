"""Sampling parameters of an image, as callers set them and as a graph reads them."""

from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from common.limits import (
    DEFAULT_GUIDANCE,
    DEFAULT_MORE_SMOOTH,
    DEFAULT_RESIDUAL_TEMPERATURE,
    DEFAULT_TOP_P,
    MAX_GUIDANCE,
    MAX_RESIDUAL_TEMPERATURE,
    MAX_TOP_P,
)
from model.errors import SettingError


def _plain(name: str, value: Any, kind: type) -> Any:
    """A parameter as a Python bool or float, also from a numpy scalar: recipes are JSON. Raises SettingError."""
    scalar = value.item() if getattr(value, "shape", None) == () else value
    if isinstance(scalar, bool) is (kind is bool) and isinstance(scalar, bool | Real):
        return kind(scalar)
    raise SettingError(name, f"{value!r}: expected {'true or false' if kind is bool else 'a number'}")


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of an image. Raises SettingError for a value out of range."""

    guidance: float = DEFAULT_GUIDANCE
    """Classifier-free guidance, 0 to 20; scale k of S uses this value times min(k, S-2)/(S-1)."""
    more_smooth: bool = DEFAULT_MORE_SMOOTH
    """Whether embeddings are soft mixtures of the codebook (the released default) or the sampled rows."""
    top_p: float = DEFAULT_TOP_P
    """Probability mass of nucleus sampling, 0 to 1; 0 is off."""
    residual_temperature: float = DEFAULT_RESIDUAL_TEMPERATURE
    """Factor on the residual diffusion's step noise, 0 to 1; the released value is 1. The start noise is not scaled."""

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(field.name, getattr(self, field.name), type(field.default)))
        if not 0 <= self.guidance <= MAX_GUIDANCE:
            raise SettingError("guidance", f"{self.guidance}: expected 0 to {MAX_GUIDANCE:g}")
        if not 0 <= self.top_p <= MAX_TOP_P:
            raise SettingError("top_p", f"{self.top_p}: expected 0 (off) to {MAX_TOP_P:g}")
        if not 0 <= self.residual_temperature <= MAX_RESIDUAL_TEMPERATURE:
            raise SettingError(
                "residual_temperature", f"{self.residual_temperature}: expected 0 to {MAX_RESIDUAL_TEMPERATURE:g}"
            )


@dataclass(frozen=True)
class Controls:
    """An image's sampling parameters at one scale as tensors, for a graph that serves all parameters."""

    guidance: Tensor
    """(1,): t of the scale."""
    more_smooth: Tensor
    """(1,), bool."""
    residual_temperature: Tensor
    """(1,)."""

    @classmethod
    def of(cls, params: SamplingParams, ratio: float, device: torch.device) -> "Controls":
        """Of an image whose guidance is `ratio` of the parameter."""
        controls = cls(
            *(torch.empty(1, dtype=dtype, device=device) for dtype in (torch.float32, torch.bool, torch.float32))
        )
        controls.fill(params, ratio)
        return controls

    def fill(self, params: SamplingParams, ratio: float) -> None:
        """Sets them on the device: a tensor made on the host would make the host wait."""
        self.guidance.fill_(params.guidance * ratio)
        self.more_smooth.fill_(params.more_smooth)
        self.residual_temperature.fill_(params.residual_temperature)
