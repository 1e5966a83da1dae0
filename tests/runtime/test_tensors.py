"""runtime.tensors, runtime.server.messages: tensors and messages from the wire."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hart.v1 import decoder_pb2, images_pb2, tensor_pb2
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime import tensors
from runtime.errors import InvalidRequest
from runtime.server import messages

DTYPES = [np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float32, ml_dtypes.bfloat16]


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda d: hnp.arrays(
            np.float32 if d is ml_dtypes.bfloat16 else d,
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
            elements={"allow_nan": False, "allow_infinity": False}
            if np.dtype(d).kind in "f" or d is ml_dtypes.bfloat16
            else None,
        )
    ),
    st.booleans(),
)
def test_array_round_trips_bit_for_bit(array: np.ndarray, brain: bool) -> None:
    if brain and array.dtype == np.float32:
        with np.errstate(over="ignore"):
            array = array.astype(ml_dtypes.bfloat16)
    back = tensors.to_numpy(tensors.from_numpy(array), "x", finite=False)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_transposed_array_is_sent_in_row_major_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    assert tensors.to_numpy(tensors.from_numpy(array), "x").tolist() == [[0, 3], [1, 4], [2, 5]]


def test_dtype_without_a_wire_type_is_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        tensors.from_numpy(np.zeros(2, np.float64))


FP32 = tensor_pb2.DATA_TYPE_FP32
BAD = {
    "no dtype": (tensor_pb2.Tensor(shape=[1], data=b"\0" * 4), "x.dtype"),
    "another dtype": (tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_INT32, shape=[1], data=b"\0" * 4), "not INT32"),
    "huge": (tensor_pb2.Tensor(dtype=FP32, shape=[2**31], data=b""), "more than"),
    "overflowing": (tensor_pb2.Tensor(dtype=FP32, shape=[2**62, 4, 2], data=b""), "more than"),
    "huge times zero": (tensor_pb2.Tensor(dtype=FP32, shape=[2**62, 0], data=b""), r"must be \[any\]"),
    "negative": (tensor_pb2.Tensor(dtype=FP32, shape=[-1], data=b"\0" * 4), "negative"),
    "two negatives": (tensor_pb2.Tensor(dtype=FP32, shape=[-1, -1], data=b"\0" * 4), "negative"),
    "many axes": (tensor_pb2.Tensor(dtype=FP32, shape=[1] * 1000, data=b"\0" * 4), "1000 axes"),
    "short": (tensor_pb2.Tensor(dtype=FP32, shape=[2], data=b"\0" * 7), "takes 8 bytes, not 7"),
    "long": (tensor_pb2.Tensor(dtype=FP32, shape=[2], data=b"\0" * 9), "takes 8 bytes, not 9"),
    "nan": (tensor_pb2.Tensor(dtype=FP32, shape=[1], data=np.float32("nan").tobytes()), "finite"),
    "infinite": (tensor_pb2.Tensor(dtype=FP32, shape=[1], data=np.float32("-inf").tobytes()), "finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_tensor_is_refused_by_field(case: str) -> None:
    tensor, message = BAD[case]
    with pytest.raises(InvalidRequest, match=message) as caught:
        tensors.to_numpy(tensor, "x", dtypes=("FP32",), shape=(None,))
    assert caught.value.violations[0].field.startswith("x.")


def test_bool_is_the_byte_zero_or_one() -> None:
    tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_BOOL, shape=[2], data=b"\1\2")
    with pytest.raises(InvalidRequest, match="0 or 1"):
        tensors.to_numpy(tensor, "mask")


def test_unknown_fields_are_found_in_lists_maps_and_oneofs() -> None:
    unknown = b"\xa2\x06\x01x"  # field 100
    message = decoder_pb2.DecodeRequest()
    message.recipe.versions["a"] = "b"
    message.encoding.MergeFromString(unknown)
    message.latent.MergeFromString(unknown)
    message.MergeFromString(unknown)
    assert {v.field for v in messages.violations(message)} == {"100", "encoding.100", "latent.100"}


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused_as_invalid(data: bytes) -> None:
    try:
        message = messages.parse(images_pb2.GenerateRequest.FromString, data)
        messages.refuse_unknown(message)
    except InvalidRequest as error:
        assert error.violations  # noqa: PT017
