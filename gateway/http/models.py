"""`GET /v1/models` and `GET /v1/models/{model}`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from gateway.http.exchange import Exchange
from gateway.http.generation_request import sizes
from gateway.http.responses import Model, ModelList
from gateway.routing.served_model import ServedModel
from runtime.errors import InvalidRequest, NotFound, Violation


class UnknownModel(NotFound, InvalidRequest):
    """No such model is served here."""


@dataclass
class Models:
    """Serves the list of models and each of them."""

    served: ServedModel
    created: int = field(default_factory=lambda: int(time.time()))

    async def list(self, exchange: Exchange) -> None:
        """All models. Raises StageUnavailable while no generator is known."""
        await exchange.respond(200, ModelList(data=[await self._model()]).to_json())

    async def get(self, exchange: Exchange) -> None:
        """One model. Raises UnknownModel, StageUnavailable."""
        name, model = exchange.request.path_params["model"], await self._model()
        if name != model.id:
            raise UnknownModel([Violation("model", f"unknown model {name[:80]!r}; served here: {model.id}")])
        await exchange.respond(200, model.to_json())

    async def _model(self) -> Model:
        await self.served.require()
        identity = self.served.identity()
        return Model(
            id=identity.name, created=self.created, digest=identity.digest, size=sizes(self.served.shape())[-1]
        )
