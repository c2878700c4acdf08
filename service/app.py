"""The application: settings in, an app out; nothing is built before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import torch
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from service.dependencies import Parts
from service.description import describe_api
from service.errors import install_error_handlers
from service.head_requests import HeadRequests
from service.registry import Registry
from service.request_ids import RequestIds
from service.results import GlobalResults
from service.routes import attributions, edges, explanations, health, models, predictions, reports, topology
from service.settings import Settings

DESCRIPTION = (
    "Looks inside LSTM+KAN forecasters. Instances, predictions, contributions, baselines and errors are in "
    "original units; scores, curves, grids, supports and thresholds in model units. Arrays run oldest step first."
)


def create_app(settings: Settings) -> FastAPI:
    """The service for the models that the settings name; it loads them in the background once it has started.

    Args:
        settings: every setting.

    Raises:
        CheckpointError: there is nothing where the settings say the models are.
    """
    parts = Parts(settings, Registry(settings.models), GlobalResults(settings.cached_results))
    app: FastAPI = FastAPIOffline(
        title="Kanscope",
        version=version("kanscope"),
        description=DESCRIPTION,
        redoc_url=None,
        static_url="/docs/assets",
        redirect_slashes=False,
        lifespan=_serve,
    )
    app.state.parts = parts
    app.add_middleware(HeadRequests)
    app.add_middleware(RequestIds)
    install_error_handlers(app)
    for resource in (models, predictions, explanations, attributions, topology, edges, reports, health):
        app.include_router(resource.router)
    app.add_route("/", _redirect_to_docs, include_in_schema=False)
    app.openapi = lambda: describe_api(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _serve(app: FastAPI) -> AsyncIterator[None]:
    """Loads the models while the app already answers: a large folder must not look like a dead process.

    Then it computes what will be asked for.
    """
    parts: Parts = app.state.parts
    torch.set_num_threads(parts.settings.torch_threads)
    loading = asyncio.create_task(run_in_threadpool(parts.registry.load))
    preparing = asyncio.create_task(_prepare(parts, loading))
    yield
    preparing.cancel()
    await parts.results.close()
    await loading


async def _prepare(parts: Parts, loading: asyncio.Task[None]) -> None:
    await asyncio.wait((loading,))
    await parts.results.prepare(parts.registry.served)


async def _redirect_to_docs(_: object) -> RedirectResponse:
    return RedirectResponse("docs")
