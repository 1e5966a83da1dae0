"""Checks prompts from the wire."""

from __future__ import annotations

from collections.abc import Iterable

from common.prompt import checked_prompt
from runtime.errors import InvalidRequest


def checked(text: str, field: str = "prompt") -> str:
    """The trimmed prompt. Raises InvalidRequest if it is empty, too long or invisible."""
    try:
        return checked_prompt(text)
    except ValueError as error:
        raise InvalidRequest.field(field, str(error)) from None


def decoded(items: Iterable[bytes], field: str, limit: int) -> list[str]:
    """The checked prompts of a BYTES tensor. Raises InvalidRequest for more than `limit` prompts or invalid UTF-8."""
    given = list(items)
    if len(given) > limit:
        raise InvalidRequest.field(field, f"must hold at most {limit} prompts, not {len(given)}")
    prompts = []
    for number, item in enumerate(given):
        try:
            prompts.append(checked(item.decode(), f"{field}[{number}]"))
        except UnicodeDecodeError:
            raise InvalidRequest.field(f"{field}[{number}]", "must be UTF-8") from None
    return prompts
