"""`python -m demo.screenshot FILE`: draws four images on the page and saves what it shows (docs/page.webp)."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

PROMPT, SEED, IMAGES = "a slice of pizza", "7", 4
WIDTH, HEIGHT = 1180, 960
WAIT = 120_000  # milliseconds


def main(
    file: Annotated[Path, typer.Argument(help="The image file.")],
    address: Annotated[str, typer.Option(help="The page's address.")] = "http://127.0.0.1:7860/",
    prompt: Annotated[str, typer.Option(help="The prompt.")] = PROMPT,
) -> None:
    """Save a picture of the page, in the browser that CHROMIUM names or in Debian's chromium."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.set_default_timeout(WAIT)
        tab.goto(address)
        tab.locator(".gallery-item").first.wait_for()
        tab.get_by_text("Settings").click()
        tab.get_by_label("number input for Pictures").fill(str(IMAGES))
        tab.locator("#seed textarea, #seed input").first.fill(SEED)
        tab.get_by_text("Settings").click()
        tab.locator("#prompt textarea").fill(prompt)
        tab.locator("#draw").click()
        tab.get_by_text("drawn in").wait_for()
        tab.wait_for_timeout(1000)  # the last files are loading
        data = tab.screenshot()
        browser.close()
    Image.open(io.BytesIO(data)).convert("RGB").save(file, quality=90)
    typer.echo(str(file))


if __name__ == "__main__":
    typer.run(main)
