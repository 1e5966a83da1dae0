"""The description of every replica of every stage, polled and cached."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from hart.v1 import stage_pb2

from gateway.routing.compatibility import MODEL_STAGES, UNKNOWN_MODEL, CompatibleReplicas, ReplicaModel
from gateway.routing.probe import describe
from runtime.calls.pool import Pool
from runtime.calls.replica import Replica, ReplicaState

log = logging.getLogger(__name__)
Description = stage_pb2.StageDescribeResponse
DESCRIBE_TIMEOUT = 1.0  # seconds, of one replica


@dataclass(frozen=True)
class ReplicaInfo:
    """A replica's last description."""

    description: Description | None
    """None: the poll failed."""
    asked_at: float
    model: ReplicaModel


class ReplicaRegistry:
    """Polls every replica every `every` seconds and keeps the last descriptions: a stage stays known during a short
    outage.

    For compatibility only a description since the replica became ready counts: an earlier one may be of another process
    at the same address.
    """

    def __init__(self, pools: Mapping[str, Pool], every: float) -> None:
        self._pools = pools
        self._every = every
        self._infos: dict[tuple[str, str], ReplicaInfo] = {}
        self._last: dict[str, Description] = {}
        self._refreshed_at = -float("inf")
        self._refreshing = asyncio.Lock()
        self._polling = asyncio.Lock()
        self._compatible = CompatibleReplicas({stage: {} for stage in MODEL_STAGES})
        self._compatible_at: tuple[int, ...] = ()
        self._polls = 0
        self._task: asyncio.Task[None] | None = None

    # -- polling -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Polls once, then goes on in the background."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stops polling."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.refresh()
            except Exception:
                log.exception("while polling descriptions")

    async def refresh(self, max_age: float = 0.0) -> None:
        """Polls every replica, unless a poll started in the last `max_age` seconds. Concurrent callers share one."""
        wanted_at = time.monotonic()
        async with self._refreshing:
            if self._refreshed_at > wanted_at - max_age:
                return
            begun = time.monotonic()
            await asyncio.gather(*(self._poll(r) for r in self._replicas() if r.state is not ReplicaState.FAILED))
            present = {_key(replica) for replica in self._replicas()}
            self._infos = {key: info for key, info in self._infos.items() if key in present}
            for stage in self._pools:
                if ready := [d for d in self.all(stage) if d.ready]:
                    self._last[stage] = ready[0]
            self._refreshed_at = begun

    async def _poll(self, replica: Replica) -> None:
        """Polls one replica. A replica too busy to answer has not changed."""
        asked_at = time.monotonic()
        description = await _ask(replica)
        known = self._known(replica)
        if known is None or (description and known.asked_at < asked_at):
            self._infos[_key(replica)] = ReplicaInfo(description, asked_at, _model_from(description))
            self._polls += 1

    def _replicas(self) -> list[Replica]:
        return [replica for pool in self._pools.values() for replica in pool.replicas]

    def _known(self, replica: Replica) -> ReplicaInfo | None:
        info = self._infos.get(_key(replica))
        return info if info and info.asked_at >= replica.ready_since else None

    # -- descriptions ------------------------------------------------------------------------------------------------

    async def compatible(self) -> CompatibleReplicas:
        """The compatible ones of the ready replicas. Polls replicas without a description since they became ready."""
        if self._compatible_at != self._state():
            while unknown := self._unpolled():
                async with self._polling:
                    await asyncio.gather(*(self._poll(r) for r in unknown if self._known(r) is None))
            self._compatible_at = self._state()
            self._compatible = CompatibleReplicas(
                {s: {r.address: self.model_of(r) for r in self._pools[s].ready} for s in MODEL_STAGES}
            )
        return self._compatible

    def _state(self) -> tuple[int, ...]:
        """Changes whenever the compatible replicas may change."""
        return self._polls, *(self._pools[stage].changes for stage in MODEL_STAGES)

    def _unpolled(self) -> list[Replica]:
        return [r for stage in MODEL_STAGES for r in self._pools[stage].ready if self._known(r) is None]

    def model_of(self, replica: Replica) -> ReplicaModel:
        """The model that the replica serves; UNKNOWN_MODEL without a description."""
        info = self._known(replica)
        return info.model if info else UNKNOWN_MODEL

    def all(self, stage: str, *, ready: bool = False) -> list[Description]:
        """Last descriptions of a stage's reachable replicas; with `ready`, of those that take work."""
        pool = self._pools[stage]
        replicas = pool.ready if ready else [r for r in pool.replicas if r.state is not ReplicaState.FAILED]
        found = [self._infos.get(_key(replica)) for replica in replicas]
        return [info.description for info in found if info and info.description]

    def last(self, stage: str) -> Description:
        """The last description of a ready replica; an empty one while there was none."""
        return self._last.get(stage, Description(stage=stage))

    def about(self, stage: str, replica: Replica) -> Description:
        """The replica's description. Without a model in it, the stage's last one without its digest, which is another
        replica's."""
        info = self._known(replica)
        if info and info.description and info.description.HasField("model"):
            return info.description
        last = Description()
        last.CopyFrom(self.last(stage))
        last.model.ClearField("digest")
        return last


def _key(replica: Replica) -> tuple[str, str]:
    return replica.stage, replica.address


def _model_from(description: Description | None) -> ReplicaModel:
    return ReplicaModel(description.model.digest, dict(description.required_digests)) if description else UNKNOWN_MODEL


def _usable(description: Description) -> Description:
    """The description without a load or cost that is not finite: NaN would pass comparisons and fail in rounding."""
    for field in ("load", "cost"):
        if not all(map(math.isfinite, _numbers(getattr(description, field)))):
            log.warning("a replica of %s reports a %s that is not finite", description.stage, field)
            description.ClearField(field)
    return description


def _numbers(message: Message) -> Iterator[float]:
    for field, value in message.ListFields():
        values = value.values() if hasattr(value, "values") else value if field.is_repeated else (value,)
        yield from (number for number in values if isinstance(number, float))


async def _ask(replica: Replica) -> Description | None:
    try:
        return _usable(await describe(replica, replica.stage, DESCRIBE_TIMEOUT))
    except grpc.RpcError:
        return None
    except ValueError as error:  # a foreign server may return values that fit into no field
        log.warning("the description of replica %s of %s is not usable: %s", replica.endpoint, replica.stage, error)
        return None
    except asyncio.CancelledError:  # also raised when the replica's channel is closed
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return None
