"""What a cluster's processes have written."""

from __future__ import annotations

import re

from cluster.plan import Plan

_UNKNOWN = re.compile(r'"unknown setting (\w+)(?:: did you mean (\w+)\?)?"')
"""A line that every process logs at its start."""


def read(plan: Plan, name: str) -> str:
    """The log of one process."""
    try:
        return (plan.folder / "logs" / f"{name}.log").read_text("utf-8", "replace")
    except OSError:
        return "(no log)"


def tail(plan: Plan, name: str, lines: int = 20) -> str:
    """The last lines that explain a failure."""
    written = read(plan, name).splitlines()
    # Lines of level info do not explain a failure, and the list of all settings would hide the wrong one.
    unusual = [line for line in written if '"level": "info"' not in line]
    return "\n".join((list(dict.fromkeys(unusual)) or written)[-lines:]) + "\n"


def unknown_settings(plan: Plan) -> dict[str, str]:
    """Settings that every process calls unknown, each with the nearest known name or ""."""
    found = [dict(_UNKNOWN.findall(read(plan, process.name))) for process in plan.processes]
    nearest = {name: known for unknown in found for name, known in unknown.items() if known}
    return {name: nearest.get(name, "") for name in sorted(set.intersection(*map(set, found)))}
