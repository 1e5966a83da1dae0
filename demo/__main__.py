"""`python -m demo`: serve the page. The connection options are those of `hart`."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from hart.cli import connection as shared

# Disables Gradio's analytics and its requests to the Hugging Face hub.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# At startup Gradio requests its own page, which must not go through a proxy.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "127.0.0.1", "localhost", "::1")))


@shared.with_connection
def main(
    where: shared.ConnectionOptions,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
) -> None:
    """Serve a web page that generates images on a HART cluster. All visitors use this API key."""
    with shared.exit_codes():
        from hart import AsyncClient

        from demo.page import CSS, THEME, build

        page = build(AsyncClient(**where.arguments()))
        try:
            page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                theme=THEME,
                css=CSS,
                footer_links=[],
            )
        except OSError:
            raise shared.UsageError(
                f"--host {host} --port {port}: port in use, or not an address of this machine"
            ) from None
        typer.echo(f"serving at http://{host}:{port}; press Ctrl-C to stop")
        page.block_thread()


if __name__ == "__main__":
    typer.run(main)
