"""runtime.observability, k8s/dashboards: a real Prometheus scrapes real processes and finds the promised metrics."""

import json
import re
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import hart
import pytest
from hart import errors

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from benchmarks.harness.processes import ROOT, STAGES, Cluster, Process
from k8s.tools import ToolMissing, tool
from tests.e2e.failing import refusing_replica
from tests.e2e.prometheus import Prometheus, prometheus

RULES = sorted((ROOT / "k8s/alerts").glob("*.yaml"))
DASHBOARDS = sorted((ROOT / "k8s/dashboards").glob("*.json"))
NAMESPACE = "pictures"
PROMISED: dict[str, dict[str, set[str]]] = {
    "hart_requests_total": {"stage": {*STAGES, "gateway"}, "code": {"OK", "RESOURCE_EXHAUSTED"}},
    "hart_request_duration_seconds_bucket": {"stage": {*STAGES, "gateway"}},
    "hart_queue_depth": {"stage": {*STAGES, "gateway"}},
    "hart_queue_limit": {"stage": {*STAGES, "gateway"}},
    "hart_queue_duration_seconds_bucket": {"stage": set(STAGES)},
    "hart_inflight": {"stage": {*STAGES, "gateway"}},
    "hart_compute_duration_seconds_bucket": {"stage": set(STAGES)},
    "hart_batch_size_bucket": {"stage": set(STAGES)},
    "hart_scale_duration_seconds_bucket": {"stage": {"ar_generator"}, "scale": {"0", "1", "2", "3"}},
    "hart_transfer_bytes_bucket": {"from": {"gateway"}, "to": set(STAGES)},
    "hart_load": {"stage": {*STAGES, "gateway"}},
    "hart_replicas": {"stage": set(STAGES), "state": {"ready", "not_ready", "failed"}},
    "hart_replicas_min": {"stage": set(STAGES)},
    "hart_device_memory_bytes": {"stage": set(STAGES), "kind": {"used", "allocated", "total"}},
    "hart_images_total": {"caller": {"anonymous"}},
    "hart_pixels_total": {"caller": {"anonymous"}},
    "hart_caller_requests_total": {"caller": {"anonymous"}, "code": {"OK", "RESOURCE_EXHAUSTED"}},
    "hart_first_preview_duration_seconds_bucket": {"stage": {"gateway"}},
    "hart_build_info": {"stage": {*STAGES, "gateway"}},
    "hart_model_info": {"stage": set(STAGES)},
    "hart_cache_hits_total": {"stage": {"text_encoder"}},
    "hart_cancelled_total": {"stage": {"gateway", "ar_generator"}},
    "hart_shed_total": {"stage": {"gateway"}, "reason": {"max_ongoing_requests"}},
    "hart_retries_total": {"stage": {"decoder"}},
    "hart_safety_verdicts_total": {"verdict": {"safe", "unsafe"}, "policy": {"dangerous_content"}},
}
"""Every documented metric: its labels, and values that the load below must produce."""
OF_GPUS = ("GPU utilisation", "GPU power", "Images per GPU-second", "Cost per 1,000 images")
"""Panels that need NVIDIA's exporter."""
GROWN = ("hart_cache_hits_total", "hart_cancelled_total", "hart_shed_total", "hart_retries_total")
pytestmark = pytest.mark.usefixtures("survives")


def load(gateway: Process, prompts: int = 6) -> None:
    """Images with previews, a repeated prompt, an unsafe prompt and a cancellation."""
    with hart.Client(gateway.address) as client:
        for turn in range(prompts):
            client.generate(f"a red heart {turn % 2}", seed=turn)
        for _ in client.stream("a blue house", preview_every=1):
            pass
        with suppress(errors.PromptUnsafe):
            client.generate(UNSAFE_PROMPT)
        for event in client.stream("a green tree", num_images=8):
            if isinstance(event, hart.Accepted):
                break  # cancels the call


def await_preview(gateway: Process) -> None:
    """Draw until a preview arrived: an image may overtake its previews, and a decoder that fails spends the retries."""
    with hart.Client(gateway.address) as client:
        for seed in range(100):
            with suppress(errors.Unavailable):
                events = list(client.stream("a blue house", seed=seed, preview_every=1))
                if any(event.preview for event in events if isinstance(event, hart.Progress)):
                    return
            time.sleep(0.1)
    raise AssertionError("no preview arrived")


def overload(gateway: Process) -> None:
    """More concurrent requests than the gateway accepts."""
    with hart.Client(gateway.address) as client, ThreadPoolExecutor(8) as many:

        def ask(seed: int) -> None:
            with suppress(errors.Overloaded):
                client.generate("a yellow sun", seed=seed)

        list(many.map(ask, range(24)))


@pytest.fixture(scope="module")
def scraped(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a cluster under load. The gateway accepts two requests at a time, and one of its
    decoders always fails with UNAVAILABLE, so that there are refusals and retries."""
    try:
        program = tool("prometheus")
    except ToolMissing as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("prometheus")
    with refusing_replica("hart.v1.Decoder") as refusing:
        decoders = f"{refusing},{cluster.where()['decoder']}"
        with cluster.another_gateway(max_ongoing_requests="2", decoder=decoders) as gateway:
            processes = [*(p for replicas in cluster.stages.values() for p in replicas), gateway]
            targets = {
                f"127.0.0.1:{p.metrics_port}": {
                    "namespace": NAMESPACE,
                    "release": "hart",
                    "pod": f"hart-{p.name}-{p.port}",
                }
                for p in processes
            }
            with prometheus(program, folder, targets, RULES) as running:
                running.await_(lambda p: len(p.query("up == 1")) == len(processes))
                load(gateway)
                await_preview(gateway)
                overload(gateway)
                await_scrape(running)
                load(gateway, 2)
                running.await_(lambda p: bool(p.query('rate(hart_cancelled_total{stage="gateway"}[5m]) > 0')))
                await_scrape(running)
                yield running


def await_scrape(running: Prometheus) -> None:
    """Wait until every target was scraped after this call began."""
    begun = time.time()
    running.await_(lambda p: bool(p.query(f"count(timestamp(up) > {begun} and up == 1) == count(up)")))


def test_every_promised_metric_has_its_labels(scraped: Prometheus) -> None:
    with suppress(TimeoutError):  # after a late scrape there are no series until the next
        scraped.await_(lambda p: not missing_labels(p), 30)
    assert missing_labels(scraped) == set()
    own = {one["metric"]["__name__"] for one in scraped.query('{__name__=~"hart_.+"}')}
    assert {re.sub("_(bucket|sum|count)$", "", n) for n in own} == {re.sub("_bucket$", "", n) for n in PROMISED}


def missing_labels(asked: Prometheus) -> set[tuple[str, str]]:
    """Documented labels without their values, and counters that never grew."""
    found = set()
    for name, labels in PROMISED.items():
        series = asked.query(name)
        for label, values in labels.items():
            if not values <= {one["metric"].get(label) for one in series}:
                found.add((name, label))
        if name in GROWN and not any(float(one["value"][1]) > 0 for one in series):
            found.add((name, "value"))
    return found


def test_finished_images_do_not_count_as_cancelled(scraped: Prometheus) -> None:
    """The generators' cancelled calls are those of abandoned images only."""
    finished = 'sum(hart_requests_total{stage="ar_generator",code="OK"})'
    scraped.await_(
        lambda p: float(p.query(finished)[0]["value"][1]) >= 10
    )  # the last ones may arrive with the next scrape
    (cancelled,) = scraped.query('sum(hart_cancelled_total{stage="ar_generator"})')
    assert float(cancelled["value"][1]) <= 2 * 8, "the two abandoned requests had eight images each"


def test_rules_are_loaded_and_healthy(scraped: Prometheus) -> None:
    scraped.await_(lambda p: all(r["lastEvaluation"][:4] != "0001" for r in rules(p)))
    text = "\n".join(path.read_text() for path in RULES)
    wanted = len(re.findall(r"^ +- (?:alert|record):", text, re.MULTILINE))
    found = rules(scraped)
    assert len(found) == wanted
    assert {(r["name"], r["health"], r.get("lastError", "")) for r in found} == {(r["name"], "ok", "") for r in found}
    firing = {r["name"] for r in found if r.get("state") == "firing"}
    assert "HartNoReadyReplica" not in firing
    assert "HartLatencyBurn" not in firing


def rules(asked: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in asked.ask("rules")["groups"] for rule in group["rules"]]


def dashboard_queries() -> list[tuple[str, str, str]]:
    """Name of the dashboard's file, title of the panel, query."""
    found = []
    for path in DASHBOARDS:
        for panel in json.loads(Path(path).read_text())["panels"]:
            for target in panel["targets"]:
                if target["datasource"]["type"] == "prometheus":
                    found.append((path.stem, panel["title"], target["expr"]))
    return found


@pytest.mark.parametrize("stage", [*STAGES, "gateway"])
def test_every_dashboard_query_finds_data(scraped: Prometheus, stage: str) -> None:
    queries = dashboard_queries()
    assert len(queries) > 30
    wanted, empty = {("hart-stage", panel) for panel in without_data(stage)}, set()
    wanted |= {("hart-usage", panel) for panel in OF_GPUS}
    for dashboard, panel, query in queries:
        chosen = query.replace("$namespace", NAMESPACE).replace("$stage", stage).replace("$__rate_interval", "1m")
        chosen = chosen.replace("$release", ".*").replace("$gpu_hour", "2.5")
        assert "$" not in chosen, query
        try:
            ask = scraped.query if (dashboard, panel) in wanted else scraped.find
            if not ask(chosen):
                empty.add((dashboard, panel))
        except urllib.error.HTTPError as error:
            pytest.fail(f"{dashboard}, {panel}: {query}: {error.read().decode()}")
    assert empty == wanted


def without_data(stage: str) -> set[str]:
    """Panels of the dashboard "one stage" without data for this stage."""
    missing = set()
    if stage != "ar_generator":
        missing.add("Duration by scale")  # others have no scales
    if stage != "text_encoder":
        missing.add("Cache hits")  # others have none
    if stage == "gateway":  # it has neither a device nor batches, and sends nothing to itself
        missing |= {"Queue time", "Compute time", "Batch size", "Device memory", "Bytes between gateway and stage"}
    return missing


def test_dashboard_variables_find_values(scraped: Prometheus) -> None:
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert asked, variable
                selector, label = asked.groups()
                series = scraped.ask("series", **{"match[]": selector.replace("$namespace", NAMESPACE)})
                assert {one[label] for one in series} in ({NAMESPACE}, {"hart"}, {*STAGES, "gateway"})
