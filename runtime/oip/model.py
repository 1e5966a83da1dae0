"""The description of a model for the Open Inference Protocol: names, tensors and one function."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.deadline import Deadline
from runtime.errors import InvalidRequest

Array = np.ndarray[Any, Any]
Parameter = bool | int | float | str
DYNAMIC = -1


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `datatypes`: the accepted ones; metadata reports the first. `shape`: DYNAMIC (-1) accepts
    any size. `max_size`: the max size of a dynamic axis of an input, checked before a tensor is read; 0: no limit."""

    name: str
    datatypes: tuple[str, ...]
    shape: tuple[int, ...]
    max_size: int = 0

    def check(self, datatype: str, shape: tuple[int, ...]) -> None:
        """Raise InvalidRequest, which names the input, if datatype or shape does not match."""
        if datatype not in self.datatypes:
            accepted = " or ".join(self.datatypes)
            raise InvalidRequest.field(f"inputs[{self.name}].datatype", f"must be {accepted}, not {datatype!r}")
        fits = len(shape) == len(self.shape) and all(w in (DYNAMIC, s) for w, s in zip(self.shape, shape, strict=True))
        if not fits or 0 in shape:
            raise InvalidRequest.field(
                f"inputs[{self.name}].shape", f"must be {list(self.shape)} (-1: any, not 0), not {list(shape)}"
            )
        largest = max((size for w, size in zip(self.shape, shape, strict=True) if w == DYNAMIC), default=0)
        if self.max_size and largest > self.max_size:
            raise InvalidRequest.field(
                f"inputs[{self.name}].shape", f"must hold at most {self.max_size}, not {largest}"
            )


@dataclass(frozen=True)
class InferRequest:
    """A checked request. `inputs` by name (BYTES as object arrays of bytes, read-only); `parameters`: those of the
    request."""

    inputs: Mapping[str, Array]
    parameters: Mapping[str, Parameter]
    deadline: Deadline
    request_id: str = ""


@dataclass(frozen=True)
class InferResult:
    """Outputs by name, and response parameters."""

    outputs: Mapping[str, Array]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


Infer = Callable[[InferRequest], Awaitable[InferResult]]
InferStream = Callable[[InferRequest], AsyncGenerator[InferResult, None]]


@dataclass(frozen=True)
class Model:
    """A model that a stage serves.

    Set either `infer` (one response) or `stream` (several; the last one is marked `triton_final_response`).
    `parameters` maps each accepted parameter to its type; others are refused. `max_elements` is the max size of each
    input, checked before it is read.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    infer: Infer | None = None
    stream: InferStream | None = None
    parameters: Mapping[str, type] = field(default_factory=dict)
    versions: tuple[str, ...] = ("1",)
    platform: str = "hart"
    max_elements: int = 2**26

    def __post_init__(self) -> None:
        if (self.infer is None) == (self.stream is None):
            raise ValueError(f"model {self.name}: set either infer or stream")
