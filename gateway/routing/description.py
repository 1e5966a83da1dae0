"""The answer to Images.Describe: model, limits, defaults, formats, policies."""

from __future__ import annotations

from hart.v1 import images_pb2, stage_pb2

from common import image_formats, limits
from common.stages import STAGES
from common.version import VERSION
from gateway.config import GatewaySettings
from gateway.request.validation import DEFAULTS
from gateway.routing.registry import ReplicaRegistry
from gateway.routing.served_model import ServedModel
from runtime.image_messages import to_wire

RECIPE_BYTES = 64 * 2**10  # of a response per image beside its pixels: recipe and message


class ClusterDescription:
    """Describes the cluster to callers."""

    def __init__(self, registry: ReplicaRegistry, model: ServedModel, settings: GatewaySettings) -> None:
        self._registry, self._model, self._settings = registry, model, settings

    async def describe(self) -> images_pb2.DescribeResponse:
        """The answer. Raises StageUnavailable before generator and decoder have described themselves."""
        await self._model.require()
        safety = self._registry.last("safety")
        model = images_pb2.ModelDescription(
            model=self._model.identity(),
            shape=self._model.shape(),
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
