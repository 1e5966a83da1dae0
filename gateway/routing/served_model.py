"""The model that the replicas serve together: its name, digest, shape and bounds."""

from __future__ import annotations

from hart.v1 import stage_pb2

from common import digests
from common.stages import STAGES
from gateway.request.validation import ModelLimits
from gateway.routing.registry import ReplicaRegistry
from runtime.errors import StageUnavailable


class ServedModel:
    """The model, from the replicas' descriptions."""

    def __init__(self, registry: ReplicaRegistry) -> None:
        self._registry = registry

    async def require(self) -> None:
        """Returns when generator and decoder are known. Raises StageUnavailable naming a stage that is not."""
        wanted = ("ar_generator", "decoder")
        if not all(map(self.known, wanted)):
            await self._registry.refresh()
        for stage in wanted:
            self.require_stage(stage)

    def known(self, stage: str) -> bool:
        """True once a ready replica of the stage has described itself."""
        return self._registry.last(stage).ready

    def require_stage(self, stage: str) -> None:
        """Raises StageUnavailable while the stage is not known."""
        if not self.known(stage):
            raise StageUnavailable(stage, "no replica is ready")

    def limits(self) -> ModelLimits | None:
        """The model's bounds on a request; None while unknown."""
        if not self.known("ar_generator"):
            return None
        return ModelLimits(self.name(), len(self.shape().scales))

    def name(self) -> str:
        """The model's name; "" while unknown."""
        return self.part("ar_generator").name

    def part(self, stage: str) -> stage_pb2.ModelIdentity:
        """The part of the model that a stage computes with, as last described."""
        return self._registry.last(stage).model

    def labels(self, stage: str) -> dict[str, str]:
        """A stage's part of the model as labels of a metric; none while unknown."""
        found = self.part(stage)
        return {"stage": stage, "model": found.name, "digest": found.digest} if found.digest else {}

    def identity(self) -> stage_pb2.ModelIdentity:
        """The name and digest that recipes carry: the generator's, with the parts that it requires."""
        required = self._registry.last("ar_generator").required_digests
        digest = digests.combine(
            generator=self.part("ar_generator").digest,
            text_encoder=required.get("text_encoder", "") or self.part("text_encoder").digest,
            decoder=required.get("decoder", "") or self.part("decoder").digest,
        )
        return stage_pb2.ModelIdentity(name=self.name(), digest=digest)

    def shape(self) -> stage_pb2.ModelShape:
        """The model's shape, merged over the stages."""
        shape = stage_pb2.ModelShape()
        for stage in STAGES:
            _complete(shape, self._registry.last(stage).shape)
        return shape


def _complete(shape: stage_pb2.ModelShape, other: stage_pb2.ModelShape) -> None:
    """Fills in the fields that `shape` does not have yet."""
    missing = stage_pb2.ModelShape()
    missing.CopyFrom(other)
    for field, _ in shape.ListFields():
        missing.ClearField(field.name)  # type: ignore[arg-type]
    shape.MergeFrom(missing)
