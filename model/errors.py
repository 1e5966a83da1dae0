"""The errors that the model raises. Each message names the item, its value and the fix."""


class ModelError(ValueError):
    """Base class of the model's errors."""


class ConfigError(ModelError):
    """A config file holds an invalid value."""


class CheckpointError(ModelError):
    """A checkpoint's files or weights are missing, misnamed or have the wrong shape."""


class SettingError(ModelError):
    """An input or a parameter is invalid or out of range. `field` names it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class NotFiniteError(ModelError):
    """A result holds NaN or infinity: a weight is corrupt, or a value overflowed the precision."""

    def __init__(self, result: str) -> None:
        super().__init__(f"{result} is not finite: a weight is corrupt, or a value overflowed the precision")


class UnsafePromptError(ModelError):
    """The prompt's score exceeds the threshold of a policy. Holds the policy's name, never the prompt."""

    def __init__(self, policy: str) -> None:
        super().__init__(f"the prompt was refused by the safety policy {policy!r}")
        self.policy = policy
