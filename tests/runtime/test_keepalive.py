"""Keepalive pings as clients of the field send them are taken at every port; a flood of them ends the connection."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from runtime.settings import ProcessSettings
from tests.runtime.pinger import Pinger
from tests.runtime.support import until


async def test_a_flood_of_pings_ends_its_connection_alone(launch: Any) -> None:
    running = await launch(ProcessSettings(port=0))
    flood = await Pinger.connect(running.app.port)
    await flood.ping(20, 0.01)
    await until(lambda: flood.gone)
    flood.close()
    asked = health_pb2.HealthCheckRequest(service="hart.v1.Decoder")
    assert (await health_pb2_grpc.HealthStub(running.channel).Check(asked, timeout=60)).status == 1
