"""client/README.md: its examples, executed."""

from __future__ import annotations

import pytest
from google.protobuf import json_format
from hart.v1 import images_pb2

from tests.client.readme import PUBLISHED, commands


@pytest.mark.parametrize("words", commands("grpcurl"), ids=lambda words: words[-1].rsplit("/", 1)[-1])
def test_grpcurl_example_names_a_method_and_its_fields(words: list[str]) -> None:
    endpoint, called = words[-2:]
    assert endpoint == PUBLISHED
    if called != "list":
        service, method = called.removeprefix("hart.v1.").split("/")
        asked = images_pb2.DESCRIPTOR.services_by_name[service].methods_by_name[method].input_type
        json_format.Parse(words[words.index("-d") + 1], getattr(images_pb2, asked.name)())
