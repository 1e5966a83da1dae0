"""The errors that a user of the model meets. Each message names the thing, its value and what to do."""


class ModelError(ValueError):
    """Base of everything that the model refuses."""


class ConfigError(ModelError):
    """A config file holds a value that cannot be used."""


class CheckpointError(ModelError):
    """A checkpoint's files or weights are missing, misnamed or of another shape."""


class SettingError(ModelError):
    """A picture was asked for with a setting out of its bounds. `field` names it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class NotFiniteError(ModelError):
    """A result holds NaN or infinities: a weight is broken, or a number left the range of the precision."""

    def __init__(self, result: str) -> None:
        super().__init__(f"{result} is not finite: a weight is broken, or the precision's range does not suffice")


class UnsafePromptError(ModelError):
    """The prompt scored above the threshold of a policy. Carries the policy's name, never the prompt."""

    def __init__(self, policy: str) -> None:
        super().__init__(f"the prompt was refused by the safety policy {policy!r}")
        self.policy = policy
