"""The routes beside the answers: models, embeddings, health, numbers."""

import asyncio
import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Response

from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.schemas import EmbeddingRequest
from finch_integrations.serve.service import Service


def make_state_routes(service: Service) -> APIRouter:
    """Make the routes that show the server's state, and that of embeddings."""
    router = APIRouter(tags=["state"])

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the model, and the encoder if there is one."""
        return {"object": "list", "data": [_model(name) for name in service.names]}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe a model."""
        if name not in service.names:
            raise ApiError(404, f"there is no model {name!r} here", "model_not_found")
        return _model(name)

    @router.post("/v1/embeddings")
    async def embeddings(body: EmbeddingRequest) -> dict[str, Any]:
        """Encode texts as vectors."""
        return await _embed(service, body)

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @router.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether it can answer."""
        service.check_ready()
        return {"status": "ready"}

    @router.get("/metrics")
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.write(), media_type="text/plain; version=0.0.4")

    return router


async def _embed(service: Service, body: EmbeddingRequest) -> dict[str, Any]:
    texts = [body.input] if isinstance(body.input, str) else body.input
    if body.model != service.encoder_name:
        name = service.encoder_name
        there = f"This server has {name!r}" if name else "It was started without one"
        raise ApiError(
            404,
            f"there is no encoder {body.model!r:.200} here. {there}",
            "model_not_found",
            param="model",
        )
    if any(not text.strip() for text in texts):
        raise ApiError(400, "a text of the input is empty", "invalid_input", param="input")
    vectors = await service.encode(texts)
    # The encoder's own tokens are not known here; these are the model's.
    tokens = await asyncio.to_thread(lambda: sum(map(service.model.count_tokens, texts)))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    data = [
        {"object": "embedding", "index": number, "embedding": _written(vector, body)}
        for number, vector in enumerate(vectors)
    ]
    return {"object": "list", "model": body.model, "data": data, "usage": usage}


def _written(vector: Any, body: EmbeddingRequest) -> str | list[float]:
    numbers = np.asarray(vector, dtype="<f4")
    if body.encoding_format == "base64":
        return base64.b64encode(numbers.tobytes()).decode()
    return [float(number) for number in numbers]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "finch"}
