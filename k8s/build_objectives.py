"""Writes the rules of the objectives: error ratios over several windows, and alerts on how fast they spend the error
budget. Knows no other alert."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).resolve().parent / "chart/files/alerts/hart-objectives.rules.yaml"
RUNBOOK = "https://hart.example/docs/operations.md"
"""A placeholder that the chart replaces with `monitoring.alerts.runbook`."""
RELEASE = 'release=~".*"'
"""Any release, also none. The chart replaces it with its own release's selector."""
NOT_VALID = "|".join(
    [
        "CANCELLED",
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "UNIMPLEMENTED",
    ]
)
"""The status codes of calls that end by the caller's own fault."""
WINDOWS = ("5m", "30m", "1h", "6h", "3d")
HEAD = """\
# Written by k8s.build_objectives (make k8s-files). Objectives over 30 days, of the gateway's valid calls:
#   availability: 99.5% end with OK;
#   latency: 99% end with OK within 10 seconds. A call that fails is late too, however soon it fails.
# Calls that end by the caller's own fault are not valid: malformed, unauthenticated and cancelled ones, and those above
# a caller's own limits. A burn rate of 14.4 spends 2% of the month's error budget in an hour, 6 spends 5% in six hours,
# 1 spends 10% in three days. The short window of a pair resolves the alert soon after its cause.
groups:
  - name: hart-objectives
    rules:
"""


@dataclass(frozen=True)
class Objective:
    """A share of valid calls that must be good."""

    alert: str
    ratio: str
    """Name of the recorded ratio of bad calls."""
    good: str
    """Counter of the good calls."""
    budget: float
    bad: str
    goal: str


@dataclass(frozen=True)
class Burn:
    """A rate at which the budget is spent, seen over a long and a short window."""

    name: str
    rate: float
    long: str
    short: str
    wait: str
    severity: str
    spent: str


OBJECTIVES = (
    Objective(
        "HartAvailabilityBurn",
        "hart:unavailable:ratio_rate",
        f'hart_requests_total{{{RELEASE},stage="gateway",code="OK"}}',
        0.005,
        "end without an image",
        "99.5% of valid calls end with OK",
    ),
    Objective(
        "HartLatencyBurn",
        "hart:late:ratio_rate",
        f'hart_request_duration_seconds_bucket{{{RELEASE},stage="gateway",code="OK",le="10.0"}}',
        0.01,
        "fail or take over 10 s",
        "99% of valid calls end with OK within 10 s",
    ),
)
BURNS = (
    Burn("fast", 14.4, "1h", "5m", "2m", "critical", "two days"),
    Burn("slow", 6, "6h", "30m", "15m", "critical", "five days"),
    Burn("trickle", 1, "3d", "6h", "1h", "warning", "a month"),
)


def valid(window: str) -> str:
    """Rate of the valid calls."""
    requests = f'hart_requests_total{{{RELEASE},stage="gateway"'
    return f"""\
      - record: hart:valid:rate{window}
        expr: |
          sum by (namespace, release) (
            rate({requests},
              code!~"{NOT_VALID}"}}[{window}]))
          - (sum by (namespace, release) (
              rate(hart_shed_total{{{RELEASE},stage="gateway",reason="caller_limit"}}[{window}]))
            or 0 * sum by (namespace, release) (rate({requests}}}[{window}])))
"""


def ratio(objective: Objective, window: str) -> str:
    """Share of bad calls. `or 0 *`: before the first good call there is no series of it."""
    return f"""\
      - record: {objective.ratio}{window}
        expr: |
          1 - (sum by (namespace, release) (
              rate({objective.good}[{window}]))
            or 0 * hart:valid:rate{window}{{{RELEASE}}}) / (hart:valid:rate{window}{{{RELEASE}}} > 0)
"""


def alert(objective: Objective, burn: Burn) -> str:
    """The alert for one rate."""
    bound = f"{burn.rate:g} * {objective.budget:g}"
    return f"""\
      - alert: {objective.alert}
        expr: |
          {objective.ratio}{burn.long}{{{RELEASE}}} > {bound}
            and {objective.ratio}{burn.short}{{{RELEASE}}} > {bound}
        for: {burn.wait}
        labels: {{severity: {burn.severity}, burn: {burn.name}}}
        annotations:
          summary: "{{{{ $labels.release }}}}: {{{{ $value | humanizePercentage }}}} of calls {objective.bad}"
          description: >-
            Objective: {objective.goal}, over 30 days. At the rate of the last {burn.long} the error budget is spent
            within {burn.spent}.
          runbook_url: {RUNBOOK}#{objective.alert.lower()}
"""


def text() -> str:
    """The file's content."""
    records = [valid(window) for window in WINDOWS]
    records += [ratio(objective, window) for objective in OBJECTIVES for window in WINDOWS]
    return HEAD + "".join(records + [alert(objective, burn) for objective in OBJECTIVES for burn in BURNS])


def main() -> int:
    """Write the file."""
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
