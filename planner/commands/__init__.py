"""The subcommands of `python -m planner`: each has `add_arguments` and `run`."""
