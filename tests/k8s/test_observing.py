"""k8s/dashboards, k8s/alerts: queries use only exported metrics and are accepted by Prometheus."""

import json
import re
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from k8s import build_dashboards, render
from k8s.tools import ToolMissing, tool
from runtime.observability import instruments
from runtime.observability.telemetry import Telemetry
from tests.e2e.prometheus import Prometheus, prometheus

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "k8s/alerts").glob("*.yaml"))
RULE_TESTS = sorted(Path(__file__).parent.glob("*_test.yaml"))
FOREIGN = re.compile(r"\b(kube|keda|certmanager|process)_\w+|\bup\b|hart:[a-z]+:")
"""Metrics of other programs, and what rules have recorded."""
DASHBOARDS = sorted((ROOT / "k8s/dashboards").glob("*.json"))
LABELS = {"code": "OK", "reason": "queue_full", "verdict": "safe", "policy": "", "scale": "3", "kind": "used"} | {
    "state": "ready",
    "to": "decoder",
    "caller": "ada",
}


@pytest.fixture(scope="module")
def telemetry() -> Iterator[Telemetry]:
    """A process's telemetry in which every metric has a value."""
    made = Telemetry("gateway")
    for instrument in vars(made.metrics).values():
        if isinstance(instrument, instruments.Counter | instruments.Gauge):
            instrument.add(1, **LABELS)
        elif isinstance(instrument, instruments.Histogram):
            instrument.record(1.0, **LABELS)
        elif isinstance(instrument, instruments.ObservedInfo):
            instrument.observe("", lambda: {"model": "emoji", "digest": "abc", "version": "1"})
        elif isinstance(instrument, instruments.ObservedGauge):
            for kind in ("used", "total") if instrument is made.metrics.device_memory else ("used",):
                instrument.observe(lambda: 1.0, **{**LABELS, "kind": kind})
    yield made
    made.shutdown()


def exported(telemetry: Telemetry) -> set[str]:
    lines = generate_latest(telemetry.registry).decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if line.startswith("hart_")}


def queries(path: Path) -> list[str]:
    panels = json.loads(path.read_text())["panels"]
    return [t["expr"] for p in panels for t in p["targets"] if t["datasource"]["type"] == "prometheus"]


def alerts() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def asked() -> dict[str, str]:
    """Every published query, by its place."""
    found = {f"{path.name} {n}": query for path in DASHBOARDS for n, query in enumerate(queries(path))}
    found |= {f"rule {n} {rule.get('alert', rule.get('record'))}": rule["expr"] for n, rule in enumerate(alerts())}
    for name, scaled in render.of_kind(
        render.manifests("defaults: {autoscaling: {kind: keda}}"), "ScaledObject"
    ).items():
        found[f"ScaledObject {name}"] = scaled["spec"]["triggers"][0]["metadata"]["query"]
    return found


@pytest.fixture(scope="module")
def published() -> dict[str, str]:
    try:
        return asked()
    except ToolMissing as error:
        pytest.skip(str(error))


def test_every_queried_metric_is_exported(telemetry: Telemetry, published: dict[str, str]) -> None:
    names = exported(telemetry)
    assert len(published) > 40
    for place, query in published.items():
        used = set(re.findall(r"\bhart_[a-z_]+", re.sub(r'"[^"]*"', "", query)))
        assert used <= names, place
        assert used or FOREIGN.search(query), place


def test_every_exported_metric_is_on_a_dashboard(telemetry: Telemetry) -> None:
    shown = {name for path in DASHBOARDS for query in queries(path) for name in re.findall(r"hart_[a-z_]+", query)}
    missing = {re.sub("_(bucket|sum|count)$", "", n) for n in exported(telemetry)} - {
        re.sub("_(bucket|sum|count)$", "", n) for n in shown
    }
    assert missing == set()


def test_objective_bound_is_a_histogram_bucket(telemetry: Telemetry) -> None:
    bounds = set(
        re.findall(
            r'hart_request_duration_seconds_bucket\{[^}]*[,{]le="([^"]+)"', generate_latest(telemetry.registry).decode()
        )
    )
    used = {bound for rule in alerts() for bound in re.findall(r'le="([^"]+)"', rule["expr"])}
    assert used == {"10.0"}
    assert used <= bounds


def test_dashboards_are_up_to_date() -> None:
    assert {path.stem for path in DASHBOARDS} == set(build_dashboards.DASHBOARDS)
    for path in DASHBOARDS:
        assert path.read_text() == build_dashboards.text(path.stem), "make k8s-files"


def test_every_alert_has_a_runbook() -> None:
    headings = re.findall(r"^#+ (\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    anchors = {f"https://hart.example/docs/operations.md#{heading.lower()}" for heading in headings}
    for rule in alerts():
        if "alert" in rule:
            assert rule["annotations"]["runbook_url"] in anchors
            assert rule["annotations"]["runbook_url"].endswith("#" + rule["alert"].lower())
            assert len(rule["annotations"]["description"]) > 40


def test_chart_ships_the_same_rules_and_dashboards() -> None:
    try:
        documents = render.manifests("monitoring: {alerts: {enabled: true}, dashboards: {enabled: true}}")
    except ToolMissing as error:
        pytest.skip(str(error))
    (shipped,) = render.of_kind(documents, "PrometheusRule").values()
    described = [(r.get("alert"), r.get("record")) for group in shipped["spec"]["groups"] for r in group["rules"]]
    assert described == [(rule.get("alert"), rule.get("record")) for rule in alerts()]
    shown = render.of_kind(documents, "ConfigMap")["hart-dashboards"]["data"]
    assert {name: json.loads(text) for name, text in shown.items()} == {
        path.name: json.loads(path.read_text()) for path in DASHBOARDS
    }


def test_alerts_fire_only_when_they_should() -> None:
    promtool = require_tool("promtool")
    for words in (["check", "rules", *map(str, RULES)], ["test", "rules", *map(str, RULE_TESTS)]):
        done = subprocess.run([promtool, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def require_tool(name: str) -> Path:
    try:
        return tool(name)
    except ToolMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def scraping(telemetry: Telemetry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus that has scraped the process."""
    program = require_tool("prometheus")
    scraped = telemetry.serve_metrics("127.0.0.1", 0)
    targets = {f"127.0.0.1:{scraped.port}": {"namespace": "pictures", "pod": "hart-decoder-1"}}
    with prometheus(program, tmp_path_factory.mktemp("prometheus"), targets, RULES) as running:
        running.await_(lambda p: bool(p.query("hart_load")))
        yield running
    scraped.close()


def test_prometheus_accepts_every_published_query(scraping: Prometheus, published: dict[str, str]) -> None:
    for place, query in published.items():
        chosen = query.replace("$namespace", "pictures").replace("$stage", "gateway").replace("$__rate_interval", "1m")
        chosen = chosen.replace("$release", ".*").replace("$gpu_hour", "2.5")
        try:
            scraping.query(chosen)
        except urllib.error.HTTPError as error:
            pytest.fail(f"{place}: {error.read().decode()}")


def test_queries_find_scraped_values(scraping: Prometheus) -> None:
    (load,) = scraping.find('sum(hart_load{namespace="pictures",stage="gateway",pod=~"hart-decoder-.+"})')
    assert load["value"][1] == "1"
    (filled,) = scraping.find("max by (stage) (hart_queue_depth / hart_queue_limit)")
    assert filled["metric"] == {"stage": "gateway"}


def test_every_panel_has_a_description_and_a_unit() -> None:
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        assert len({panel["title"] for panel in panels}) == len(panels)
        for panel in panels:
            defaults = panel["fieldConfig"]["defaults"]
            assert defaults["unit"], (path.name, panel["title"])
            assert len(panel["description"]) > 20, (path.name, panel["title"])
            base, *limits = defaults["thresholds"]["steps"]
            assert base["value"] is None
            assert [limit["value"] for limit in limits] == sorted(limit["value"] for limit in limits)


def test_every_runbook_has_content() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    for rule in alerts():
        if "alert" in rule:
            name = rule["alert"]
            heading, runbook = text.partition(f"### {name}\n")[1:]
            assert heading, name
            assert len(runbook.partition("\n#")[0].split()) > 25, name
