"""Which replicas' parts were made for one another. Knows digests, nothing of calls or of what a part does."""

from __future__ import annotations

import random
from collections.abc import Mapping

from hart.v1 import stage_pb2

from runtime.errors import StageUnavailable

Description = stage_pb2.StageDescribeResponse
GENERATOR, PARTNERS = "ar_generator", ("text_encoder", "decoder")
LINE = (GENERATOR, *PARTNERS)
"""The stages whose parts must have been made for one another. Safety's stands alone."""


def agree(one: str, other: str) -> bool:
    """Whether two digests may meet. One that is not known, as of a foreign server's model, is taken on trust."""
    return not one or not other or one == other


class Lines:
    """Keeps a request on one line: a generator, and the text encoder and the decoder that its model was made with.

    While the model's version changes there may be two lines at once, or a stage whose partners have not come yet.
    `ready`: by stage, what each ready replica says of itself, by address.
    """

    def __init__(self, ready: Mapping[str, Mapping[str, Description]]) -> None:
        self._ready = ready

    def text_encoder(self) -> str:
        """The digest of the text encoder to ask: that of a whole line, the more likely the more generators it has; ""
        where any will do. Raises StageUnavailable when no line is whole."""
        generators = list(self._ready[GENERATOR].values())
        whole = [g for g in generators if not self._missing(g)]
        if generators and not whole:
            raise self._apart(self._missing(generators[0]), generators[0])
        return random.choice(whole).needs.get("text_encoder", "") if whole else ""

    def encoders(self, digest: str) -> frozenset[str]:
        """Addresses of the text encoders that have this digest."""
        return self._with("text_encoder", digest)

    def generators(self, text_encoder: str) -> frozenset[str]:
        """Addresses of the generators which can go on from what this text encoder wrote, and be decoded. Raises
        StageUnavailable where there are others alone."""
        found = self._ready[GENERATOR]
        fitting = {address: g for address, g in found.items() if agree(g.needs.get("text_encoder", ""), text_encoder)}
        whole = frozenset(address for address, g in fitting.items() if not self._missing(g, "decoder"))
        if found and not fitting:
            wanted = ", ".join(sorted({g.needs.get("text_encoder", "") for g in found.values()}))
            raise StageUnavailable(
                GENERATOR, f"the prompt was read by the text encoder {text_encoder}; its replicas want {wanted}"
            )
        if fitting and not whole:
            raise self._apart("decoder", next(iter(fitting.values())))
        return whole

    def decoders(self, digest: str) -> frozenset[str]:
        """Addresses of the decoders that have this digest. Raises StageUnavailable where there are others alone."""
        fitting = self._with("decoder", digest)
        if not fitting and (found := self._digests("decoder")):
            raise StageUnavailable("decoder", f"the latent is for the decoder {digest}; its replicas are {found}")
        return fitting

    def _with(self, stage: str, digest: str) -> frozenset[str]:
        return frozenset(a for a, d in self._ready[stage].items() if agree(d.model.digest, digest))

    def _missing(self, generator: Description, *stages: str) -> str:
        """The first stage that has replicas, none of which fits this generator; "" where there is none."""
        for stage in stages or PARTNERS:
            if self._ready[stage] and not self._with(stage, generator.needs.get(stage, "")):
                return stage
        return ""

    def _apart(self, stage: str, generator: Description) -> StageUnavailable:
        return StageUnavailable(
            stage,
            f"the generator {generator.model.digest} was made with {stage} {generator.needs.get(stage, '')}; "
            f"its replicas are {self._digests(stage)}",
        )

    def _digests(self, stage: str) -> str:
        return ", ".join(sorted({d.model.digest for d in self._ready[stage].values()}))
