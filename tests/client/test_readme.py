"""client/README.md: its examples, executed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from google.protobuf import json_format
from hart.v1 import images_pb2

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "client/README.md").read_text("utf-8")
PUBLISHED = "127.0.0.1:50051"


def commands(tool: str) -> list[list[str]]:
    """The arguments of the README's command lines that begin with a tool, without the pipe's rest."""
    found = [shlex.split(line.split("|")[0]) for line in README.splitlines() if line.startswith(f"    {tool} ")]
    assert found
    return found


@pytest.mark.parametrize("words", commands("grpcurl"), ids=lambda words: words[-1].rsplit("/", 1)[-1])
def test_grpcurl_example_names_a_method_and_its_fields(words: list[str]) -> None:
    endpoint, called = words[-2:]
    assert endpoint == PUBLISHED
    if called != "list":
        service, method = called.removeprefix("hart.v1.").split("/")
        asked = images_pb2.DESCRIPTOR.services_by_name[service].methods_by_name[method].input_type
        json_format.Parse(words[words.index("-d") + 1], getattr(images_pb2, asked.name)())
