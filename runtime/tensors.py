"""Conversion between hart.v1.Tensor and numpy. Sizes are checked before memory is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from hart.v1 import tensor_pb2

from runtime.errors import InvalidRequest

Array = np.ndarray[Any, Any]
MAX_ELEMENTS = 2**26
MAX_RANK = 8

_BY_NAME = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
}
_NUMBER = {name: tensor_pb2.DataType.Value(f"DATA_TYPE_{name}") for name in _BY_NAME}
_NAME = {number: name for name, number in _NUMBER.items()}
_NAME_OF_DTYPE = {dtype: name for name, dtype in _BY_NAME.items()}


def to_numpy(
    tensor: tensor_pb2.Tensor,
    field: str,
    *,
    dtypes: Sequence[str] = tuple(_BY_NAME),
    shape: Sequence[int | None] | None = None,
    max_elements: int = MAX_ELEMENTS,
    finite: bool = True,
) -> Array:
    """A read-only view of the tensor's bytes (no copy).

    `dtypes`: accepted names ("FP32", …). `shape`: the expected sizes; None accepts any size. `finite`: refuse NaN and
    infinities. Raises InvalidRequest, which names `field` and its fault.
    """
    name = _NAME.get(tensor.dtype, "")
    if name not in dtypes:
        got = name or tensor.dtype
        raise InvalidRequest.field(f"{field}.dtype", f"must be one of {', '.join(dtypes)}, not {got}")
    sizes = tuple(tensor.shape)
    _check_shape(sizes, field, shape, max_elements)
    dtype = _BY_NAME[name]
    expected = math.prod(sizes) * dtype.itemsize
    if len(tensor.data) != expected:
        detail = f"{list(sizes)} of {name} takes {expected} bytes, not {len(tensor.data)}"
        raise InvalidRequest.field(f"{field}.data", detail)
    array = view(tensor.data, dtype, sizes, f"{field}.data")
    if finite:
        require_finite(array, f"{field}.data")
    return array


def view(data: bytes, dtype: np.dtype[Any], sizes: tuple[int, ...], field: str) -> Array:
    """The bytes as an array. Raises InvalidRequest for a BOOL byte other than 0 or 1."""
    if dtype == np.bool_ and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise InvalidRequest.field(field, "a BOOL element must be the byte 0 or 1")
    return np.frombuffer(data, dtype).reshape(sizes)


def require_finite(array: Array, field: str) -> None:
    """Raise InvalidRequest if a float array holds a NaN or an infinity."""
    if (array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16) and not np.isfinite(array).all():
        raise InvalidRequest.field(field, "must hold finite numbers only")


def _check_shape(sizes: tuple[int, ...], field: str, shape: Sequence[int | None] | None, max_elements: int) -> None:
    where = f"{field}.shape"
    shown = list(sizes[:MAX_RANK])
    if len(sizes) > MAX_RANK:
        raise InvalidRequest.field(where, f"has {len(sizes)} axes, more than {MAX_RANK}")
    if any(size < 0 for size in sizes):
        raise InvalidRequest.field(where, f"{shown} has a negative size")
    if math.prod(sizes) > max_elements:
        raise InvalidRequest.field(where, f"{shown} has more than {max_elements} elements")
    if shape is not None:
        fits = len(shape) == len(sizes) and all(w is None or w == s for w, s in zip(shape, sizes, strict=True))
        if not fits:
            expected = ", ".join("any" if w is None else str(w) for w in shape)
            raise InvalidRequest.field(where, f"must be [{expected}], not {shown}")


def from_numpy(array: Array) -> tensor_pb2.Tensor:
    """The array as a hart.v1.Tensor. Raises ValueError for a dtype without a wire type."""
    name = _NAME_OF_DTYPE.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise ValueError(f"dtype {array.dtype} has no wire type; supported: {', '.join(_BY_NAME)}")
    data = np.ascontiguousarray(array, dtype=_BY_NAME[name]).tobytes()
    return tensor_pb2.Tensor(dtype=_NUMBER[name], shape=array.shape, data=data)
