"""demo: the page in a real browser, with Chromium, Gradio and the cluster as processes. `make demo-check` runs it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hart
import pytest
from PIL import Image

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import ROOT, Cluster
from tests.client.conftest import Gateway
from tests.client.conftest import gateway as gateway
from tests.recipes import read_recipe

playwright = pytest.importorskip("playwright.sync_api", reason="`make demo-check` installs what the page needs")

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WAIT = 60_000  # milliseconds


@contextmanager
def serving(endpoint: str, folder: Path) -> Iterator[str]:
    """The address of the page, which runs as a process and is ended by SIGINT."""
    port = free_port()
    command = [sys.executable, "-m", "demo", "--port", str(port), "--endpoint", endpoint]
    log = folder / "page.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, "TMPDIR": str(folder)}
        )
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "no Chromium is installed: `apt install chromium`, or CHROMIUM=/path/to/it"
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A tab that must send no request to any other machine."""
    context = browser.new_context(accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(WAIT)
    unknown: list[str] = []
    ours = ("http://127.0.0.1", "data:", "blob:")
    opened.on("request", lambda asked: None if asked.url.startswith(ours) else unknown.append(asked.url))
    yield opened
    context.close()
    assert unknown == []


@pytest.fixture(scope="module")
def page(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(cluster.endpoint, tmp_path_factory.mktemp("page")) as address:
        yield address


def draw(tab: Any, prompt: str) -> None:
    """Type a prompt and press the button."""
    tab.locator("#prompt textarea").fill(prompt)
    tab.locator("#draw").click()


def test_page_shows_previews_and_then_the_clusters_image(tab: Any, page: str, cluster: Cluster) -> None:
    sources: list[str] = []
    tab.on("response", lambda r: sources.append(r.url) if "/preview-" in r.url else None)
    tab.goto(page)
    tab.get_by_text("Settings").click()
    tab.locator("#seed textarea, #seed input").first.fill(str(2**63 + 1))
    draw(tab, "a Blue house!")
    tab.get_by_text(f"with seed {2**63 + 1}").wait_for()
    image = tab.locator("#pictures img").first
    address = image.get_attribute("src")
    assert address.endswith(f"/a-blue-house-{2**63 + 1}.png")
    with hart.Client(cluster.endpoint) as client:
        (alone,) = client.generate("a Blue house!", seed=2**63 + 1)
    data = tab.request.get(address).body()
    assert (read_recipe(data), pixels(data)) == (read_recipe(alone.data), pixels(alone.data))
    assert sources, "previews were shown"
    assert tab.locator("#times").get_by_text("ar generator").count() == 1


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def test_example_prompt_is_generated_with_two_clicks(tab: Any, page: str) -> None:
    tab.goto(page)
    tab.get_by_text("Example prompts").wait_for()
    tab.locator(".gallery-item").first.click()
    tab.wait_for_function("document.querySelector('#prompt textarea').value.length > 0")
    tab.locator("#draw").click()
    tab.get_by_text("drawn in").wait_for()


def test_refusals_are_shown_with_the_clusters_message(tab: Any, page: str) -> None:
    tab.goto(page)
    draw(tab, UNSAFE_PROMPT)
    tab.get_by_text("refused: the prompt").wait_for()
    draw(tab, "")
    tab.get_by_text("InvalidRequest: prompt").wait_for()
    tab.get_by_text("Settings").click()
    tab.locator("#seed textarea, #seed input").first.fill("seven")
    draw(tab, "<b>a house</b>")
    tab.get_by_text("seed: 'seven' is not an integer").wait_for()


def test_stop_cancels_on_the_server(tab: Any, gateway: Gateway, tmp_path: Path) -> None:
    gateway.hang = True
    with serving(gateway.endpoint, tmp_path) as address:
        tab.goto(address)
        draw(tab, "x")
        tab.get_by_text("0 of 3 scales").wait_for()
        tab.locator("#stop").click()
        assert gateway.cancelled.wait(60)
        tab.get_by_text("stopped").wait_for()


def test_closed_tab_cancels_on_the_server(browser: Any, gateway: Gateway, tmp_path: Path) -> None:
    gateway.hang = True
    with serving(gateway.endpoint, tmp_path) as address:
        tab = browser.new_page()
        tab.goto(address)
        draw(tab, "x")
        tab.get_by_text("0 of 3 scales").wait_for()
        tab.close()
        assert gateway.cancelled.wait(60)


def test_unavailable_cluster_is_shown_on_load_and_on_request(tab: Any, tmp_path: Path) -> None:
    with serving(f"127.0.0.1:{free_port()}", tmp_path) as address:
        tab.goto(address)
        tab.get_by_text("Unavailable").wait_for()
        tab.get_by_text("Unavailable").evaluate("element => element.dataset.old = true")
        draw(tab, "x")
        tab.locator("p:not([data-old])", has_text="Unavailable").wait_for()
