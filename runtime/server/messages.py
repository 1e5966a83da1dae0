"""Checks that hold for every protobuf message: bytes that parse, no unknown fields, no unknown enum values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from runtime.errors import InvalidRequest, Violation
from runtime.status import MAX_VIOLATIONS

M = TypeVar("M")
MAX_UNKNOWN = 64 * 2**10
"""Max bytes of unknown fields that are named one by one. Naming millions would block the event loop for seconds."""


def parse(deserialize: Callable[[bytes], M], data: bytes) -> M:
    """Parse `data`. Raises InvalidRequest if the bytes are not such a message (including invalid UTF-8)."""
    try:
        return deserialize(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise InvalidRequest.field("", f"the {len(data)} bytes received are not a message of this method") from error


def refuse_unknown(message: Message) -> None:
    """Raise InvalidRequest if the message holds unknown fields or enum values at any depth. It names up to
    MAX_VIOLATIONS of them."""
    unknown = _unknown_bytes(message)
    if unknown > MAX_UNKNOWN:
        raise InvalidRequest.field("", f"{unknown} bytes of the message are unknown fields")
    found = list(islice(violations(message), MAX_VIOLATIONS))
    if found:
        raise InvalidRequest(found)


def _unknown_bytes(message: Message) -> int:
    """Bytes of unknown fields at any depth. 0 without a check if the message is smaller than MAX_UNKNOWN."""
    size = message.ByteSize()
    if size <= MAX_UNKNOWN:
        return 0
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return size - known.ByteSize()


def violations(message: Message, path: str = "") -> Iterator[Violation]:
    """Yield each unknown field and enum value below `path`. It reads no scalars, so a tensor's bytes are not copied."""
    unknowns: Any = UnknownFieldSet(message)
    for unknown in unknowns:
        yield Violation(f"{path}{unknown.field_number}", "unknown field number")
    descriptors: Any = message.DESCRIPTOR.fields
    for field in descriptors:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for where, value in _children(message, field, path):
                yield from violations(value, where + ".")
        elif field.type == FieldDescriptor.TYPE_ENUM:
            yield from _enum_violations(message, field, path)


def _children(message: Message, field: FieldDescriptor, path: str) -> Iterator[tuple[str, Message]]:
    where = path + field.name
    value: Any = getattr(message, field.name)
    kind = field.message_type
    assert kind is not None  # noqa: S101 - the caller checked the field's type
    if kind.GetOptions().map_entry:
        if kind.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE:
            yield from ((f"{where}[{str(key)[:40]}]", value[key]) for key in value)
    elif field.is_repeated:
        yield from ((f"{where}[{i}]", item) for i, item in enumerate(value))
    elif message.HasField(field.name):
        yield where, value


def _enum_violations(message: Message, field: FieldDescriptor, path: str) -> Iterator[Violation]:
    value: Any = getattr(message, field.name)
    kind = field.enum_type
    assert kind is not None  # noqa: S101 - the caller checked the field's type
    for i, number in enumerate(value if field.is_repeated else [value]):
        if number not in kind.values_by_number:
            where = f"{path}{field.name}" + (f"[{i}]" if field.is_repeated else "")
            yield Violation(where, f"unknown value {number} of {kind.name}")
