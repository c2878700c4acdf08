"""The application: settings in, an app out; nothing is built before."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import get_args

import torch
from fastapi import FastAPI, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from service.compute import Compute
from service.document import describe_api
from service.document.older import downgrade
from service.models.registry import Registry, State
from service.models.stores import follow
from service.models.trust import TrustedKeys
from service.models.watching import Watch, share_memory
from service.operations import (
    alternatives,
    attributions,
    backtest,
    cut,
    drift,
    edges,
    explain,
    formula,
    health,
    infer,
    models,
    outcomes,
    predict,
    reference,
    report,
    repository,
    topology,
)
from service.operations.route import Dispatch, Parts, routes_of
from service.pages import ASSETS, DOCS, FOLDER, ExplorerFiles, get_docs
from service.settings import Settings
from service.telemetry.logs import RequestLog
from service.telemetry.metrics import Metrics
from service.telemetry.monitor import Monitor
from service.telemetry.observation import Observation, start_tracing
from service.telemetry.otlp import MetricSender, find_logs, is_sent
from service.telemetry.receipts import Receipts
from service.telemetry.record import Record
from service.wire.connections import guarded
from service.wire.errors import answer_http_error
from service.wire.json import answer_json
from service.wire.security import Access, load_keys, load_origins
from service.work.cache import Answers
from service.work.forecasts import Forecasts
from service.work.results import GlobalResults
from service.work.sampling import Sampling
from service.work.shadows import Shadows

DESCRIPTION = (
    "Looks inside LSTM+KAN forecasters. Instances, predictions, contributions, baselines and errors are in "
    "original units; scores, curves, grids, supports and thresholds in model units. Arrays run oldest step first."
)
_OWN = ("X-Request-Id", "X-Request-Purpose", "X-Request-Timeout")
CORS_REQUEST = ("Authorization", "Content-Type", "If-None-Match", "Traceparent", infer.HEADER_LENGTH, *_OWN)
CORS_ANSWER = ("ETag", "Retry-After", "X-Request-Id", infer.HEADER_LENGTH)
OFF = ("operation_spans", "metrics", "logs")  # of FastAPI's telemetry
OLDER_PATH = "/openapi-3.0.json"  # beside /openapi.json
REFRESH_SECONDS = 1.0  # by which gauges of other workers may be late
_ON_WINDOWS = (predict, cut, outcomes, backtest, explain, alternatives)
_ON_MODELS = (models, reference, attributions, topology, edges, report, formula, drift)
OPERATIONS = (*_ON_WINDOWS, *_ON_MODELS, infer, repository, health)  # in the order of the routes and the document


def create_app(settings: Settings) -> FastAPI:
    """The service for the models that the settings name; it loads them in the background once it has started.

    Raises:
        CheckpointError: there is no file or folder where the settings say the models are.
        ConfigError: the API keys cannot be used, or there must be some; tracing is on, and OpenTelemetry is missing; a
            package is missing for the URL of the models; or the record, the monitor or what is downloaded cannot be
            written where the settings say.
    """
    if settings.tracing:
        start_tracing()
    source = follow(settings.models, settings.downloads, settings.download_bytes)
    trusted = None if settings.trusted_keys is None else TrustedKeys(settings.trusted_keys)
    registry = Registry(source, settings.model_bytes, trusted)
    counted = Metrics(lambda: {(one.name, version) for one in registry.entries for version in (one.version, "")})
    counted.watch(counted.model_bytes, lambda: registry.n_bytes)
    counted.watch(counted.models_outdated, lambda: float(registry.problem is not None))
    counted.watch(counted.models_missing, lambda: float(registry.is_missing))
    counted.watch(counted.bundled_model, lambda: float(settings.models is None))
    for state in get_args(State):
        counted.watch(counted.models.labels(state), partial(registry.count, state))
    compute = Compute(settings, counted)
    forecasts = Forecasts(compute, counted.batch_windows.observe)
    results = GlobalResults(settings.cached_results, compute, registry.defaults)
    answers = Answers(settings.cached_answers, registry.index)
    record = None if settings.record is None else Record(settings, counted)
    monitor = None if settings.monitor == "off" else Monitor(settings, counted)
    shadows = Shadows(registry, compute, counted, monitor)
    receipts = Receipts(settings.receipt_key.get_secret_value())
    parts = Parts(settings, registry, results, compute, forecasts, answers, shadows, counted, record, monitor, receipts)
    counted.watch(counted.unprepared, lambda: parts.results.unprepared)
    app: FastAPI = FastAPIOffline(
        title="Kanscope",
        version=version("kanscope").replace(".dev", "-dev"),  # as Semantic Versioning and so Cargo want it
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        static_url=ASSETS,
        redirect_slashes=False,
        lifespan=_serve,
        # Metrics and logs are `Observation`'s. To ask OpenTelemetry whether it is set up takes a twentieth of a
        # forecast's request, so it is asked only where the setting says so.
        telemetry={"tracing": settings.tracing, "auto_configure": settings.tracing, **dict.fromkeys(OFF, False)},
    )
    app.state.parts = parts
    app.state.watch = Watch(registry, parts.results.prepare, settings.poll_seconds)
    origins = load_origins(settings)
    keys = app.state.keys = load_keys(settings)
    log = app.state.log = RequestLog(settings, counted.dropped_lines.inc)
    app.add_exception_handler(HTTPException, answer_http_error)
    routes = app.state.routes = [route for module in OPERATIONS for route in routes_of(module)]
    # In place of FastAPI's stack: a request to an operation passes none of it, and others what they need.
    others = ExceptionMiddleware(AsyncExitStackMiddleware(app.router), app.exception_handlers)
    access: ASGIApp = Access(Dispatch(others, routes, compute.room), keys, settings)
    if origins:
        access = CORSMiddleware(access, origins, ("GET", "HEAD", "POST"), CORS_REQUEST, expose_headers=CORS_ANSWER)
    app.middleware_stack = guarded(Observation(access, parts.metrics, log))
    app.add_api_route(DOCS, get_docs, include_in_schema=False)
    for route in app.routes:  # of FastAPI, such as /docs
        if isinstance(route, Route) and not route.include_in_schema and route.methods == {"GET"}:
            route.methods.add("HEAD")
    app.router.routes.append(Route(OLDER_PATH, _get_older_document, include_in_schema=False))
    # The page's relative addresses need the folder.
    for path, to in (("/", "docs"), ("/explorer", "explorer/")):
        app.router.routes.append(Route(path, RedirectResponse(to), methods=["GET"], include_in_schema=False))
    app.mount("/explorer", ExplorerFiles(FOLDER))
    info = {"title": app.title, "version": app.version, "description": DESCRIPTION}
    app.openapi = cache(partial(describe_api, info, routes))  # type: ignore[method-assign]
    app.state.older_document = cache(lambda: downgrade(app.openapi()))
    return app


async def _get_older_document(request: Request) -> Response:
    """The document in OpenAPI 3.0; behind a proxy's prefix the service is there, as FastAPI says in the other one."""
    document, root = request.app.state.older_document(), request.scope.get("root_path", "")
    return answer_json(document | {"servers": [{"url": root}, *document["servers"]]} if root else document)


@asynccontextmanager
async def _serve(app: FastAPI) -> AsyncIterator[None]:
    """Watches over the models while the app answers; see `Watch`."""
    parts: Parts = app.state.parts
    torch.set_num_threads(1)  # forecasts too: processes share cores better than threads
    share_memory()
    parts.compute.start()
    if parts.record is not None:
        parts.record.start()
    if parts.monitor is not None:
        parts.monitor.start()
    sender = MetricSender(parts.metrics) if is_sent("METRICS") else None
    if sender is not None:
        sender.start()
    watch: Watch = app.state.watch
    watching = asyncio.create_task(watch.run())
    others = [asyncio.create_task(_refresh(parts.metrics))] if parts.settings.is_shared else []
    if parts.monitor is not None and parts.settings.monitor_share:
        sampling = Sampling(parts.monitor, parts.compute, parts.results, parts.settings)
        others.append(asyncio.create_task(sampling.run()))
    if app.state.keys is not None and app.state.keys.file is not None:
        others.append(asyncio.create_task(app.state.keys.file.follow()))
    if parts.settings.is_shared:  # one that takes the place of another has no answer before, while the others have
        server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)  # uvicorn's, which tells the app of no
        while not (watch.loaded.is_set() or parts.registry.is_downloading or getattr(server, "should_exit", False)):
            await asyncio.sleep(0.05)  # signal, but waits for it
    yield
    for task in others:
        task.cancel()
    watch.close()
    parts.shadows.close()
    await parts.compute.close()
    for writing in (parts.record, parts.monitor):
        if writing is not None:
            await asyncio.to_thread(writing.close)
    await watching
    if sender is not None:
        await asyncio.to_thread(sender.close)
    if (logs := find_logs()) is not None:
        await asyncio.to_thread(logs.flush)
    await asyncio.to_thread(app.state.log.close)


async def _refresh(metrics: Metrics) -> None:
    """Lets other processes see the metrics of this one, for as long as it runs."""
    while True:
        metrics.refresh()
        await asyncio.sleep(REFRESH_SECONDS)
