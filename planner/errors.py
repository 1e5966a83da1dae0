"""Errors of the planner's user."""


class PlanError(Exception):
    """An argument or a file is wrong, or no plan meets the target. The message names the field and its value."""
