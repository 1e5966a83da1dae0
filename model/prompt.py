"""Prompt validation for the in-process pipeline."""

from common import prompt as rule
from model.errors import SettingError


def checked_prompt(prompt: str) -> str:
    """The trimmed prompt. Raises SettingError if it is not a str, empty, too long or invisible."""
    if not isinstance(prompt, str):
        raise SettingError("prompt", f"{prompt!r}: expected a string")
    try:
        return rule.checked_prompt(prompt)
    except ValueError as error:
        raise SettingError("prompt", str(error)) from None
