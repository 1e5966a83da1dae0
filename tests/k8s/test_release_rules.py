"""The rules of a release are about this release alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import build_objectives, build_readme, render
from k8s.tools import ToolMissing, tool

try:
    PROMTOOL = tool("promtool")
    tool("helm")
except ToolMissing as error:
    pytest.skip(str(error), allow_module_level=True)

VALUES = "monitoring: {alerts: {enabled: true, runbook: 'https://wiki.example.org/hart'}, podMonitor: {enabled: true}}"
NAMES = re.compile(r'(horizontalpodautoscaler|scaledObject|pod|name)=~"([^"]+)"')


def rules() -> dict[str, Any]:
    (shipped,) = render.of_kind(render.manifests(VALUES), "PrometheusRule").values()
    spec: dict[str, Any] = shipped["spec"]
    return spec


def test_the_objectives_are_what_their_description_makes() -> None:
    assert build_objectives.FILE.read_text() == build_objectives.text(), "make k8s-files"


def test_the_charts_readme_is_what_its_values_make() -> None:
    assert build_readme.README.read_text() == build_readme.text(), "make k8s-files"


def test_every_rule_selects_its_own_release() -> None:
    for group in rules()["groups"]:
        for rule in group["rules"]:
            expression = rule["expr"]
            for selector in re.findall(r"\b(?:hart_\w+|hart:\w+:\w+|up)\{[^}]*\}", expression):
                assert 'namespace="pictures",release="hart"' in selector, selector
            assert ".*-)?hart-" not in expression
            for _, pattern in NAMES.findall(expression):
                assert re.fullmatch(pattern, "hart-decoder-1"), pattern
                assert re.fullmatch(pattern, "keda-hpa-hart-ar-generator"), pattern
                assert not re.fullmatch(pattern, "hart-v2-decoder-1"), pattern


def test_prometheus_takes_the_rules_of_a_release(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    done = subprocess.run([PROMTOOL, "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_link_to_the_runbook_that_the_values_name() -> None:
    for group in rules()["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["annotations"]["runbook_url"] == f"https://wiki.example.org/hart#{rule['alert'].lower()}"


def test_a_scrape_labels_series_with_their_release() -> None:
    (monitor,) = render.of_kind(render.manifests(VALUES), "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert {"targetLabel": "release", "replacement": "hart"} in endpoint["relabelings"]
    assert {"targetLabel": "job", "replacement": "hart"} in endpoint["relabelings"]
