"""The facts about a running cluster, kept as JSON in its folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cluster.plan import ROOT, TLS, Plan

NOT_OF_PROCESSES = ("HART_ENDPOINT", "HART_API_KEY", "HART_PORT")
"""Variables that no process inherits: the command `hart` reads them, or the plan sets them."""


def prepare_folder(plan: Plan) -> Path:
    """Make the plan's folder with room for logs; returns it."""
    (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
    return plan.folder


def read(plan: Plan) -> dict[str, Any]:
    """The facts; empty where none can be read."""
    try:
        facts: dict[str, Any] = json.loads(_file(plan).read_text())
    except (OSError, ValueError):
        return {}
    return facts


def add(plan: Plan, /, **facts: Any) -> None:
    """Add facts to those on disk."""
    _file(plan).write_text(json.dumps(read(plan) | facts))


def begin(plan: Plan, pid: int, created: float) -> None:
    """Replace the facts by those of a manager that was just started."""
    remove(plan)
    add(
        plan,
        pid=pid,
        created=created,
        plan=fingerprint(plan),
        port=plan.port,
        replicas=dict(plan.replicas),
        tls=plan.environment.get(TLS, ""),
        http_port=plan.http_port,
        named=plan.named,
    )


def remove(plan: Plan) -> None:
    """Delete the facts."""
    _file(plan).unlink(missing_ok=True)


def kept(plan: Plan) -> bool:
    """Whether the cluster was started to outlive its sessions."""
    return bool(read(plan).get("kept", True))


def fingerprint(plan: Plan) -> str:
    """Equal for plans whose processes would be the same. A hash, because settings contain secrets."""
    settings = {name: value for name, value in plan.environment.items() if name.startswith(("HART_", "OMP_", "OTEL_"))}
    for name in NOT_OF_PROCESSES:
        settings.pop(name, None)
    text = json.dumps([plan.port, str(plan.root), dict(plan.replicas), settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def shown(path: Path) -> Path:
    """A path as messages print it: relative to the checkout where it lies inside."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _file(plan: Plan) -> Path:
    return plan.folder / "cluster.json"
