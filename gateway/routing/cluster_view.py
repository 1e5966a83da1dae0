"""The cluster as callers, admission and autoscaling see it: model, limits, status, load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hart.v1 import images_pb2, stage_pb2

from common import digests, image_formats, limits
from common.stages import STAGES
from common.version import VERSION
from gateway.config import GatewaySettings
from gateway.request.validation import DEFAULTS, ModelLimits
from gateway.routing.problems import problems
from gateway.routing.registry import ReplicaRegistry
from runtime.calls.pool import Pool
from runtime.errors import StageUnavailable
from runtime.image_messages import to_wire

RECIPE_BYTES = 64 * 2**10  # of a response per image beside its pixels: recipe and message
STATUS_AGE = 0.5  # maximum age in seconds of the descriptions in a Status response


class ClusterView:
    """Answers from the replicas' descriptions."""

    def __init__(self, pools: Mapping[str, Pool], registry: ReplicaRegistry, settings: GatewaySettings) -> None:
        self._pools = pools
        self._registry = registry
        self._settings = settings

    # -- the model ---------------------------------------------------------------------------------------------------

    async def require(self) -> None:
        """Returns when generator and decoder are known. Raises StageUnavailable naming a stage that is not."""
        wanted = ("ar_generator", "decoder")
        if not all(map(self._known, wanted)):
            await self._registry.refresh()
        for stage in wanted:
            self._require(stage)

    def _known(self, stage: str) -> bool:
        return self._registry.last(stage).ready

    def _require(self, stage: str) -> None:
        if not self._known(stage):
            raise StageUnavailable(stage, "no replica is ready")

    def limits(self) -> ModelLimits | None:
        """The model's bounds on a request; None while unknown."""
        if not self._known("ar_generator"):
            return None
        return ModelLimits(self.name(), len(self.shape().scales))

    def name(self) -> str:
        """The model's name; "" while unknown."""
        return self.identity("ar_generator").name

    def identity(self, stage: str) -> stage_pb2.ModelIdentity:
        """The model of a stage, as last described."""
        return self._registry.last(stage).model

    def model_labels(self, stage: str) -> dict[str, str]:
        """The model of a stage as labels of a metric; none while unknown."""
        found = self.identity(stage)
        return {"stage": stage, "model": found.name, "digest": found.digest} if found.digest else {}

    def model(self) -> stage_pb2.ModelIdentity:
        """The model by the name and digest that recipes carry: the generator's, with the parts that it requires."""
        required_digests = self._registry.last("ar_generator").required_digests
        digest = digests.combine(
            generator=self.identity("ar_generator").digest,
            text_encoder=required_digests.get("text_encoder", "") or self.identity("text_encoder").digest,
            decoder=required_digests.get("decoder", "") or self.identity("decoder").digest,
        )
        return stage_pb2.ModelIdentity(name=self.name(), digest=digest)

    def shape(self) -> stage_pb2.ModelShape:
        """The model's shape, merged over the stages."""
        shape = stage_pb2.ModelShape()
        for stage in STAGES:
            _complete(shape, self._registry.last(stage).shape)
        return shape

    # -- answers to callers ------------------------------------------------------------------------------------------

    def describe(self) -> images_pb2.DescribeResponse:
        """The answer to Images.Describe. Raises StageUnavailable before the generator has described itself."""
        self._require("ar_generator")
        safety = self._registry.last("safety")
        model = images_pb2.ModelDescription(
            model=self.model(),
            shape=self.shape(),
            sampling_defaults=self._registry.last("ar_generator").sampling_defaults,
            example_prompts=next((p for stage in STAGES if (p := self._registry.last(stage).example_prompts)), []),
        )
        return images_pb2.DescribeResponse(
            models=[model],
            limits=self._limits(model.shape),
            defaults=DEFAULTS,
            formats=map(to_wire, image_formats.FORMATS.values()),
            policy_version=safety.policy_version,
            policies=safety.policies,
            version=VERSION,
        )

    def _limits(self, shape: stage_pb2.ModelShape) -> images_pb2.Limits:
        pixels = shape.height * (3 * shape.width + 1)  # an uncompressed PNG; no format is larger
        return images_pb2.Limits(
            max_prompt_characters=limits.MAX_PROMPT_CHARACTERS,
            max_images=limits.MAX_IMAGES,
            max_guidance=limits.MAX_GUIDANCE,
            max_preview_every=len(shape.scales),
            max_request_id_characters=limits.MAX_REQUEST_ID_CHARACTERS,
            max_request_bytes=self._settings.max_message_bytes,
            max_response_bytes=limits.MAX_IMAGES * (pixels + pixels // 64 + RECIPE_BYTES),
            default_deadline_seconds=self._settings.default_deadline_seconds,
            max_deadline_seconds=self._settings.max_deadline_seconds,
        )

    async def status(self) -> list[images_pb2.StageStatus]:
        """The stages of Images.Status, in the order of a request's way."""
        await self._registry.refresh(STATUS_AGE)
        return [self._status(stage) for stage in STAGES]

    async def problems(self) -> list[str]:
        """Why no image can be drawn; empty while requests can be served."""
        return list(problems(self._pools, await self._registry.compatible(), self._settings))

    def total_load(self, stage: str) -> float:
        """Queued plus running cost over the capacity of one replica, summed over the replicas."""
        return sum(one.load.load for one in self._registry.all(stage))

    def room(self, stage: str) -> int:
        """Requests that the ready replicas can hold, waiting and in work; 0 where one does not say."""
        limits = self._ready_limits(stage)
        if not all(limit.concurrency for limit in limits):
            return 0
        return sum(limit.queue_limit + limit.concurrency for limit in limits)

    def slots(self, stage: str) -> int:
        """Requests that the ready replicas work on at the same time, as far as they say."""
        return sum(limit.concurrency for limit in self._ready_limits(stage))

    def _ready_limits(self, stage: str) -> list[stage_pb2.StageLimits]:
        return [one.limits for one in self._registry.all(stage, ready=True)]

    def wait(self, stage: str) -> float:
        """Seconds that a request would wait at the least busy replica, as last described."""
        return min((one.load.estimated_wait_seconds for one in self._registry.all(stage)), default=0.0)

    def start_seconds(self, stage: str) -> float:
        """Seconds of a replica's start, as last described; 0 while unknown."""
        return self._registry.last(stage).cost.start_seconds

    def image_seconds(self) -> float:
        """Compute of one image alone, summed over the stages as last described; 0 while unknown."""
        return sum(self._registry.last(stage).cost.request_seconds for stage in STAGES)

    def _status(self, stage: str) -> images_pb2.StageStatus:
        pool = self._pools[stage]
        loads = [one.load for one in self._registry.all(stage, ready=True)]
        return images_pb2.StageStatus(
            stage=stage,
            replicas=len(pool.replicas),
            ready=len(pool.ready),
            load=_mean(load.load for load in loads),
            queued=sum(load.queued for load in loads),
            running=sum(load.running for load in loads),
            model=self.identity(stage),
        )


def _complete(shape: stage_pb2.ModelShape, other: stage_pb2.ModelShape) -> None:
    """Fill in what `shape` does not say yet."""
    missing = stage_pb2.ModelShape()
    missing.CopyFrom(other)
    for field, _ in shape.ListFields():
        missing.ClearField(field.name)  # type: ignore[arg-type]
    shape.MergeFrom(missing)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
