"""Random protobuf messages of any type, from their descriptors."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

F = FieldDescriptor
_INTEGERS = {
    F.TYPE_INT32: (-(2**31), 2**31 - 1),
    F.TYPE_INT64: (-(2**63), 2**63 - 1),
    F.TYPE_UINT32: (0, 2**32 - 1),
    F.TYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = st.sampled_from([0.0, -0.0, 0.5, 1.0, 4.5, 20.0, 20.5, -1.0, 1e30, math.nan, math.inf]) | st.floats(width=32)
_TEXTS = st.sampled_from(["", "a red heart", " ", "x" * 2001, "\0", "é\U0001f600", "../etc/passwd"]) | st.text(
    max_size=8
)
_BYTES = st.sampled_from([b"", b"\0" * 512, b"\1" * 8]) | st.binary(max_size=64)


def messages(descriptor: Descriptor, depth: int = 4) -> st.SearchStrategy[Any]:
    """Messages of this type; each field is absent or any value of its type."""
    kind = GetMessageClass(descriptor)
    fields = {f.name: _field(f, depth) for f in descriptor.fields if depth > 0 or f.type != F.TYPE_MESSAGE}
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: _build(kind, chosen))


def _build(kind: Any, chosen: dict[str, Any]) -> Any:
    message = kind()
    for name, value in chosen.items():
        target = getattr(message, name)
        if isinstance(value, dict):
            for key, item in value.items():
                if hasattr(item, "CopyFrom"):
                    target[key].CopyFrom(item)
                else:
                    target[key] = item
        elif isinstance(value, list):
            target.extend(value)
        elif hasattr(value, "CopyFrom"):
            target.CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_single(key, depth), _single(value, depth), max_size=2)
    one = _single(field, depth)
    return st.lists(one, max_size=4) if field.is_repeated else one


def _single(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.type == F.TYPE_MESSAGE:
        assert field.message_type is not None
        return messages(field.message_type, depth - 1)
    if field.type in _INTEGERS:
        low, high = _INTEGERS[field.type]
        small = [n for n in (0, 1, 2, 8, 24, -1, 2**31 - 1, high) if low <= n <= high]
        return st.sampled_from(small) | st.integers(low, high)
    if field.type == F.TYPE_ENUM:
        assert field.enum_type is not None
        return st.sampled_from([*field.enum_type.values_by_number, 99])
    return {
        F.TYPE_DOUBLE: _FLOATS,
        F.TYPE_FLOAT: _FLOATS.filter(lambda x: math.isnan(x) or math.isinf(x) or abs(x) < 1e38),
        F.TYPE_BOOL: st.booleans(),
        F.TYPE_STRING: _TEXTS,
        F.TYPE_BYTES: _BYTES,
    }[field.type]
