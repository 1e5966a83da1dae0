"""Status says why no image can be drawn (gateway.routing.problems)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hart.v1 import images_pb2

from tests.gateway.support import FakeStage, RunningGateway, running_gateway, until


async def problems(running: RunningGateway) -> list[str]:
    status = await running.stub.Status(images_pb2.StatusRequest())
    return list(status.problems)


async def test_a_cluster_that_serves_has_no_problem() -> None:
    async with running_gateway() as running:
        assert await problems(running) == []


async def test_a_stage_that_does_not_answer_is_named_with_its_addresses() -> None:
    async with running_gateway() as running:
        decoder = running.stage("decoder")
        await running.end(decoder)
        await until(lambda: not any(replica.state.value == "ready" for replica in running.app.pools[3].replicas))
        (problem,) = await problems(running)
    assert problem == f"decoder: no replica is ready (no answer from 127.0.0.1:{decoder.port})"


@pytest.mark.usefixtures("short_first_probe")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "ar_generator: no replica is found at HART_AR_GENERATOR=file://"),
        ({"scale_to_zero_stages": "ar_generator"}, "ar_generator: scaled to zero: a request starts it"),
    ],
)
async def test_a_stage_without_replicas_says_where_they_were_sought(
    tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "generators").write_text("")
    async with running_gateway(ar_generator=f"file://{tmp_path}/generators", **settings) as running:
        (problem,) = await problems(running)
    assert problem.startswith(sentence)


async def test_parts_of_different_checkpoints_are_named_by_their_digests() -> None:
    def mix(stages: dict[str, list[FakeStage]]) -> None:
        stages["ar_generator"][0].required_digests = {"decoder": "d-old"}
        stages["decoder"][0].digest = "d-new"

    async with running_gateway(prepare=mix) as running:
        (problem,) = await problems(running)
    assert "requires decoder d-old" in problem
    assert "d-new" in problem
