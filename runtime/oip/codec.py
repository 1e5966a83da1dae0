"""Conversion of Open Inference Protocol tensors and parameters to and from numpy.

It reads typed contents and raw contents (little-endian; each BYTES element after a four-byte length). It writes raw
contents. Source: "Tensor Data" in kserve's grpc_predict_v2.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from tritonclient.grpc import service_pb2

from runtime import tensors
from runtime.errors import InvalidRequest
from runtime.oip.model import Array, Parameter

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def element_count(shape: Iterable[int], field: str, max_elements: int) -> int:
    """The number of elements of a shape. Raises InvalidRequest for negative sizes and for more than `max_elements`."""
    sizes = list(shape)
    if len(sizes) > tensors.MAX_RANK or any(s < 0 for s in sizes):
        raise InvalidRequest.field(
            field, f"{sizes[: tensors.MAX_RANK]} is not a shape of up to {tensors.MAX_RANK} axes"
        )
    count = math.prod(sizes)
    if count > max_elements:
        raise InvalidRequest.field(field, f"{sizes} has more than {max_elements} elements")
    return count


def decode_raw(data: bytes, datatype: str, shape: tuple[int, ...], field: str) -> Array:
    """Raw contents as an array of `shape`, which was checked before. Raises InvalidRequest, which names `field`."""
    count = math.prod(shape)
    if datatype == "BYTES":
        return _objects(_split(data, count, field), shape)
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise InvalidRequest.field(field, f"unknown datatype {datatype!r}")
    if len(data) != count * dtype.itemsize:
        detail = f"{list(shape)} of {datatype} takes {count * dtype.itemsize} bytes, not {len(data)}"
        raise InvalidRequest.field(field, detail)
    array = tensors.view(data, dtype, shape, field)
    tensors.require_finite(array, field)
    return array


def decode_typed(contents: service_pb2.InferTensorContents, datatype: str, shape: tuple[int, ...], field: str) -> Array:
    """Typed contents as an array of `shape`. Raises InvalidRequest, which names `field`."""
    name = _TYPED.get(datatype)
    if name is None:
        raise InvalidRequest.field(field, f"datatype {datatype!r} must be sent as raw contents")
    values = getattr(contents, name)
    count = math.prod(shape)
    if len(values) != count:
        raise InvalidRequest.field(field, f"{list(shape)} requires {count} elements in {name}, not {len(values)}")
    if datatype == "BYTES":
        return _objects(list(values), shape)
    dtype = _DTYPES[datatype]
    if dtype.kind in "iu" and count:
        wide, limits = np.array(values), np.iinfo(dtype)
        if wide.min() < limits.min or wide.max() > limits.max:
            raise InvalidRequest.field(field, f"holds a value outside {datatype}")
    array = np.array(values, dtype).reshape(shape)
    tensors.require_finite(array, field)
    return array


def encode(array: Array) -> tuple[str, bytes]:
    """The datatype name and raw contents of an array. Object arrays must hold bytes. Raises ValueError for an
    unsupported dtype."""
    if array.dtype == object:
        return "BYTES", b"".join(struct.pack("<I", len(item)) + item for item in array.reshape(-1))
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise ValueError(f"dtype {array.dtype} has no datatype in the protocol")
    return name, np.ascontiguousarray(array, dtype=_DTYPES[name]).tobytes()


def parameters(given: Mapping[str, service_pb2.InferParameter]) -> dict[str, Parameter]:
    """Wire parameters as plain values."""
    return {key: getattr(p, kind) for key, p in given.items() if (kind := p.WhichOneof("parameter_choice"))}


def set_parameter(target: service_pb2.InferParameter, value: Parameter) -> None:
    """Set a wire parameter to a plain value."""
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int):
        target.int64_param = value
    elif isinstance(value, float):
        target.double_param = value
    else:
        target.string_param = value


def bytes_array(items: Iterable[bytes], shape: tuple[int, ...] | None = None) -> Array:
    """An object array of bytes; one-dimensional without `shape`."""
    values = list(items)
    return _objects(values, shape if shape is not None else (len(values),))


def response(
    model: str, request_id: str, outputs: Mapping[str, Array], names: Iterable[str]
) -> service_pb2.ModelInferResponse:
    """A ModelInferResponse with the outputs of these names in raw contents."""
    message = service_pb2.ModelInferResponse(model_name=model, model_version="1", id=request_id)
    for name in names:
        if name in outputs:
            datatype, raw = encode(outputs[name])
            message.outputs.add(name=name, datatype=datatype, shape=outputs[name].shape)
            message.raw_output_contents.append(raw)
    return message


def _split(data: bytes, count: int, field: str) -> list[bytes]:
    items: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 4
        size = struct.unpack_from("<I", data, at)[0] if end <= len(data) else -1
        if size < 0 or end + size > len(data) or len(items) == count:
            raise InvalidRequest.field(field, f"is not {count} BYTES elements, each after its four-byte length")
        items.append(data[end : end + size])
        at = end + size
    if len(items) != count:
        raise InvalidRequest.field(field, f"holds {len(items)} BYTES elements, but the shape has {count}")
    return items


def _objects(items: list[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)
