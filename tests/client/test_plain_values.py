"""Numbers and texts as libraries, files and consoles have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hart as package
import numpy as np
import pytest
from hart.channel import Connection

from tests.client.conftest import Gateway


@pytest.mark.parametrize("seconds", [np.float32(5), np.float64(5), np.int64(5), np.array(5.0)])
def test_a_librarys_number_is_a_timeout(gateway: Gateway, seconds: Any) -> None:
    with package.Client(gateway.endpoint) as client:
        client.generate("x", timeout=seconds)
        client.status(timeout=seconds)
        list(client.stream("x", timeout=seconds))
    assert 0 < (gateway.remaining[0] or 0) <= 5.1  # gRPC rounds a deadline up, by about a hundredth


async def test_and_for_the_asyncio_client(gateway: Gateway) -> None:
    async with package.AsyncClient(gateway.endpoint) as client:
        await client.generate("x", timeout=np.float32(5), num_images=np.int8(2))  # type: ignore[arg-type]
        await client.status(timeout=np.int64(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [np.float32("nan"), np.int64(0), np.bool_(True), np.array([5.0]), np.str_("5")])
def test_a_librarys_number_out_of_range_is_no_timeout(gateway: Gateway, seconds: Any) -> None:
    with package.Client(gateway.endpoint) as client, pytest.raises(package.InvalidRequest, match="timeout: "):
        client.status(timeout=seconds)


def test_a_librarys_numbers_are_options(gateway: Gateway) -> None:
    chosen: dict[str, Any] = {
        "num_images": np.int64(2),
        "seed": np.uint64(2**64 - 9),
        "guidance": np.float32(0.5),
        "top_p": np.array(0.25),
        "more_smooth": np.bool_(False),
    }
    with package.Client(gateway.endpoint) as client:
        client.generate("x", **chosen)
        sent = gateway.requests[0]
        assert (sent.num_images, sent.seed, sent.guidance, sent.top_p, sent.more_smooth) == (
            2,
            2**64 - 9,
            0.5,
            0.25,
            False,
        )
        with pytest.raises(package.InvalidRequest) as refused:
            client.generate("x", num_images=np.bool_(True), seed=np.float64(1.5))  # type: ignore[arg-type]
    assert set(refused.value.fields) == {"num_images", "seed"}


def test_blanks_around_an_endpoint_and_a_key_are_an_environment_files(gateway: Gateway) -> None:
    connection = Connection(f"\ufeff {gateway.endpoint}\r\n", "s3cret\r\n")
    assert (connection.endpoint, connection.api_key) == (gateway.endpoint, "s3cret")
    with package.Client(f"{gateway.endpoint}\r", api_key="s3cret ") as client:
        client.generate("x")
    assert gateway.metadata[0]["authorization"] == "Bearer s3cret"


def test_marks_in_a_file_of_prompts_are_no_letters(hart: Any, gateway: Gateway) -> None:
    Path("p.txt").write_bytes("\ufeffa heart\n\ufeffa tree\u200b\n\u200b\n".encode())
    assert hart("generate", "--file", "p.txt", "-o", "g.png").exit_code == 0
    assert sorted(request.prompt for request in gateway.requests) == ["a heart", "a tree"]
