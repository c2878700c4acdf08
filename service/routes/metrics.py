"""GET /metrics, for Prometheus; not part of the API for which clients are generated."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.http.security import METRICS
from service.routes.dependencies import TheParts

router = APIRouter(include_in_schema=False, dependencies=[METRICS])


@router.get("/metrics")
def get_metrics(request: Request, parts: TheParts) -> Response:
    """All metrics of this process."""
    content, media_type = parts.metrics.expose(request.headers.get("accept", ""))
    return Response(content, media_type=media_type)
