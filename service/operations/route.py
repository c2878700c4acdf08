"""One way in: what an operation states, the route that runs it, and the call that its handler takes.

FastAPI resolves nothing around the handlers, since that takes longer than a forecast; `service.document` describes
them.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import inf
from types import ModuleType
from typing import Any, Literal, TypeVar, cast
from weakref import WeakKeyDictionary

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from kanmodel.arrays import Array
from kanmodel.model import Model
from service.answers.members import Closed, VersionQuery
from service.compute import Compute, leave
from service.document import PURPOSE_HEADER, TIMEOUT_HEADER
from service.models.registry import Registry, Served
from service.operations.windows import CheckedWindows
from service.room import HOLD, Deadline, Hold, Room
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.monitor import Monitor
from service.telemetry.observation import span
from service.telemetry.receipts import Receipts
from service.telemetry.record import Record
from service.wire.bodies import LARGE, PARSED, Limits, find_limits, may_hold_series, read_body, validate_request
from service.wire.connections import ClosingStream, while_connected
from service.wire.errors import (
    NotFoundError,
    NotReadyError,
    RequestError,
    answer_exception,
    answer_http_error,
    end_stream,
    invalid_value,
    send_error,
)
from service.wire.headers import choose_media_type, find_header, path_of
from service.wire.json import HTML, JSON, MARKDOWN, NDJSON, SVG, encode_json
from service.wire.security import HEALTH, METRICS_PATH, OWNER, KeyScope
from service.wire.windows import read_output
from service.work.cache import Answer, Answers, key_of
from service.work.forecasts import Forecasts
from service.work.results import GlobalResults
from service.work.shadows import Shadows

Found = TypeVar("Found")


class ModelName(StringConvertor):
    """A path segment up to a colon, so that ``GET …:predict`` is a wrong method and not an unknown model."""

    regex = "[^/:]+"


register_url_convertor("name", ModelName())
OF_A_MODEL = "/models/{model:name}"
MODEL = "/v1" + OF_A_MODEL
MODEL_V2 = "/v2" + OF_A_MODEL  # of the Open Inference Protocol
VERSION_V2 = MODEL_V2 + "/versions/{version:name}"
_FORMATS = {"json": JSON, "svg": SVG, "html": HTML, "markdown": MARKDOWN}
_TIMEOUT, _PURPOSE = TIMEOUT_HEADER.lower().encode(), PURPOSE_HEADER.lower().encode()
N_PROBES = 32  # requests for health and metrics that are answered at a time, beside the others
READ_ON_LOOP = 48_000  # bytes of a body that are parsed in a millisecond; of a series a sixteenth of that
DESCRIBED_ON_LOOP = 500  # values of an answer, and of the windows it checks, that are described in a millisecond
FORECASTS = (":predict", "/infer")  # ends of their paths


@dataclass(frozen=True)
class Parts:
    """The components of a running service, built once by `create_app`."""

    settings: Settings
    registry: Registry
    results: GlobalResults
    compute: Compute
    forecasts: Forecasts
    answers: Answers
    shadows: Shadows
    metrics: Metrics
    record: Record | None  # if answers are recorded
    monitor: Monitor | None  # if forecasts are counted
    receipts: Receipts
    limits: WeakKeyDictionary[Model, Limits] = field(default_factory=WeakKeyDictionary)  # of the bodies of requests


class Call(Request):
    """A request to an operation, with what its route has read for the handler."""

    deadline: Deadline  # when it stops waiting
    query: Any  # its query, as the operation's model of it
    place: Any  # the rest of its path, likewise
    media_type: str  # of the answer
    served: Served  # the model of its path, in the version asked for or drawn, or the default one
    is_open: bool = False  # whether it names no version, and has windows
    hold: Hold  # what it holds until its answer is sent
    observe: Callable[[], object] | None = None  # what is observed of it, once its answer is sent

    @cached_property
    def parts(self) -> Parts:
        """The components of the service."""
        return cast(Parts, self.app.state.parts)

    @property
    def model_name(self) -> str:
        """The name of the model of its path; the setting `model_name` stands for the only one there is."""
        name, index = self.path_params["model"], self.parts.registry.index()
        is_alias = name == self.parts.settings.model_name and name not in index and len(index) == 1
        return next(iter(index)) if is_alias else name

    @property
    def explores(self) -> bool:
        """Whether its client says that it only looks, as the explorer does: such forecasts are no production."""
        return find_header(self.scope, _PURPOSE) == "explore"

    @property
    def output(self) -> str:
        """The output or bound that the query names; raises `DataError` or `NotFoundError` if there is none."""
        return read_output(self.query.output, self.served.model)

    @property
    def limits(self) -> Limits:
        """What a body of a request to the model may hold."""
        known = self.parts.limits
        if (limits := known.get(self.served.model)) is None:
            limits = known[self.served.model] = find_limits(self.served.model, self.parts.settings)
        return limits

    async def find_model(self) -> Model:
        """The model that has this output, see `Model.find_output`, made off the event loop."""
        find = partial(self.served.model.find_output, self.output)
        if self.output in self.served.model.outputs:
            return find()[0]
        key = ("bound", self.served.checkpoint, self.output)
        return (await self.parts.compute.submit(find, "explanation", self.deadline, key=key, keep=leave))[0]

    async def read_body(self, media_types: Sequence[str] = (JSON,)) -> bytes:
        """See `wire.bodies.read_body`."""
        return await read_body(self, self.parts.settings, self.hold, self.deadline, media_types)

    async def parse(self, read: Callable[[], Found], body: bytes) -> Found:
        """What is read of a body: at once if that is quick, otherwise on a thread."""
        with span("parse"):
            if is_quick_to_read(body):
                return read()
            return await self.submit(read, n_bytes=PARSED * len(body))

    async def submit(self, compute: Callable[[], Found], n_bytes: int = 0) -> Found:
        """Runs a function on a thread in its turn; see `Compute.submit`."""
        return await self.parts.compute.submit(compute, "explanation", self.deadline, n_bytes=n_bytes)

    async def find(self, method: Callable[..., Found], output: str | None = None, **options: Any) -> Found:
        """A global result of the model, by default for the output of the query; see `GlobalResults.find`."""
        return await self.parts.results.find(self.served, output or self.output, method, self.deadline, **options)

    async def make(self, describe: Callable[[], Response], n_bytes: int = 0) -> Response:
        """The answer of a cached operation, which is described, encoded and compressed on a thread, once for all."""
        answers, index = self.parts.answers, self.parts.registry.index()
        key: tuple[Any, ...] = key_of(self.scope, self.media_type)
        keep = partial(answers.keep, self.scope, self.media_type, index)

        def make() -> Answer:
            with span("encode"):
                return Answer.of(describe())

        submit, key = self.parts.compute.submit, (*key, id(index))
        return self.choose(await submit(make, "explanation", self.deadline, key=key, keep=keep, n_bytes=n_bytes))

    def choose(self, answer: Answer) -> Response:
        """The form of an answer that the client takes, or 304 if it has it."""
        status, headers, body = answer.choose(dict(self.scope["headers"]))
        response = Response(body, status)
        response.raw_headers = headers
        return response

    def choose_media_type(self, offered: tuple[str, ...]) -> str:
        """The media type of the answer that the client wants most; raises `RequestError` if it accepts none."""
        if chosen := choose_media_type(find_header(self.scope, b"accept"), offered):
            return chosen
        message = f"the response is {' or '.join(offered)}, which Accept excludes"
        raise RequestError(message, code="not_acceptable")

    async def load(self, name: str, version: str | None) -> Served:
        """As `Registry.get`, on a thread of its own; at the deadline `DeadlineError`, while loading continues."""
        served = self.parts.registry.find(name, version)
        if served is None:
            get = partial(self.parts.registry.get, name, version)
            key = ("load", name, version)
            served = await self.parts.compute.submit(get, "load", self.deadline, key=key, keep=leave)
        return served

    def count_warnings(self, counts: Mapping[str, int]) -> None:
        """Counts windows with values outside the training range, by feature, of what is no exploration."""
        if counts and not self.explores:
            self.parts.metrics.observe_outside_range(self.served.name, counts)

    def count_forecasts(self, checked: CheckedWindows, predictions: Array) -> None:
        """Counts forecasts, and warnings.

        Those of an exploration are counted as that alone: not by the monitor, nor forecast by shadows.
        """
        parts, served, windows = self.parts, self.served, checked.given.windows
        if self.explores:
            parts.metrics.observe_forecasts(served.name, served.version, "explored", len(predictions))
            return
        self.count_warnings(checked.counts)
        parts.metrics.observe_forecasts(served.name, served.version, "answer", len(predictions))
        if self.is_open:
            parts.shadows.offer(served, windows)
        if parts.monitor is not None:
            parts.monitor.watch(served, windows, predictions)


Handler = Callable[[Call], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Operation:
    """Declares an operation, as the decorator of its handler, whose name is its id.

    The document, the router, scopes, labels and the cache of answers read it from here.
    """

    method: Literal["GET", "POST"]  # HEAD comes with GET
    path: str  # a model in it is found, and loaded unless `loads` is False, or the scope is admin
    tag: str  # its group in the document
    scope: KeyScope | None  # that a key needs; None where no key is needed
    answer: Any  # the type of its JSON
    also: str | None = None  # a second path, which the document leaves out
    body: type[Closed] | None = None  # its model; admin may leave out the body
    query: type[Closed] | None = None  # by default a version where it has a model
    place: type[Closed] | None = None  # the rest of its path
    media_types: tuple[str, ...] = (JSON,)  # among which the client chooses
    is_cached: bool = False  # its answer depends on the checkpoint and the query alone
    loads: bool = True
    is_drawn: bool = True  # whether a canary may answer a POST that names no version
    others: Sequence[Any] = ()  # types of the document's schemas besides: of the lines of a stream
    responses: Mapping[str, Any] = field(default_factory=dict)  # of the document, besides the usual
    is_documented: bool = True

    def __call__(self, handler: Handler) -> "OperationRoute":
        """The route of the operation."""
        return OperationRoute(self, handler)


def result(path: str, tag: str, answer: Any, query: type[Closed], **more: Any) -> Operation:
    """Declares an operation that depends on the checkpoint and the query alone; `path` is below that of the model."""
    return Operation("GET", f"{MODEL}/{path}", tag, "read", answer, query=query, is_cached=True, **more)


async def stream_result(
    call: Call,
    method: Callable[..., Found],
    describe_part: Callable[[Any], Mapping[str, Any]],
    describe_all: Callable[[Found], Mapping[str, Any]],
) -> Response:
    """A result line by line: its parts as they are found, where it is still computed, and at last all of it.

    What fails before there is a part is raised; after it, the error is the last line.
    """
    parts: asyncio.Queue[Any] = asyncio.Queue()
    computing = call.parts.results.follow(call.served, call.output, method, call.deadline, parts.put_nowait)
    finding = asyncio.ensure_future(computing)
    finding.add_done_callback(lambda _: parts.put_nowait(None))
    try:
        first = await while_connected(call, parts.get())
        if first is None:
            finding.result()
    except BaseException:
        finding.cancel()
        raise

    async def lines() -> AsyncGenerator[bytes, None]:
        found = first
        try:
            while found is not None:
                yield encode_json(describe_part(found)) + b"\n"
                found = await while_connected(call, parts.get())
            yield encode_json(describe_all(finding.result())) + b"\n"
        except ClientDisconnect:
            return
        except Exception as error:
            yield end_stream(call, error)
        finally:
            finding.cancel()

    return ClosingStream(lines(), media_type=NDJSON)


class OperationRoute:
    """An operation as it is routed and run: a pattern of paths, and what answers a request to one of them."""

    def __init__(self, stated: Operation, handler: Handler) -> None:
        self.stated, self.handler, scope = stated, handler, stated.scope
        self.is_v2, self.of_model = stated.path.startswith("/v2"), "{model" in stated.path
        self._loads = stated.loads and self.of_model and scope != "admin"
        self._draws = self._loads and stated.is_drawn and stated.method == "POST"
        self.takes_timeout = self._loads or (self.of_model and scope == "admin")
        self.takes_purpose = self._draws  # it has windows
        self.query = stated.query or (VersionQuery if self.of_model and not self.is_v2 else Closed)
        self._no_query, members = self.query(), self.query.model_fields
        self._has_version, self._has_format = "version" in members, "format" in members
        statuses = {406, 421, 431, 500, 503, 400 if self.is_v2 else 422}
        statuses |= {401, 403, 429} if scope else set()
        statuses |= {404} if self.of_model else set()
        statuses |= {501} if self.of_model and scope == "admin" else set()
        statuses |= {408, 413, 415} if stated.body else set()
        statuses |= {304} if stated.is_cached else set()
        self.statuses = sorted(statuses)
        self.name = handler.__name__  # the operation's id
        self.path_regex, self.path_format, _ = compile_path(stated.path)

    async def answer(self, hold: Hold, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or refuses it."""
        call = Call(scope, receive)
        call.hold = hold
        try:
            response = await self._answer(call)
        except Exception as error:
            response = answer_exception(call, error)
        if not isinstance(response, StreamingResponse) and len(response.body) > LARGE:
            call.hold.add(len(response.body))
        await response(scope, receive, send)
        if (observe := call.observe) is not None:
            call.observe = None  # which holds the call
            observe()

    def takes(self, method: str) -> bool:
        """Whether it is its method; HEAD is GET (RFC 9110, section 9.3.2), whose body the server leaves out."""
        return method == self.stated.method or (method == "HEAD" and self.stated.method == "GET")

    async def _answer(self, call: Call) -> Response:
        """The answer, from the cache where it is there: it then depends on the checkpoint and the query alone."""
        if self.stated.scope is not None:
            call.scope["state"]["caller"].require(self.stated.scope)
        call.deadline = _read_deadline(call)
        if not self.stated.is_cached:
            return await self._compute(call)
        accepted = choose_media_type(find_header(call.scope, b"accept"), self.stated.media_types) or ""
        known = call.parts.answers.get(call.scope, accepted)
        return await while_connected(call, self._compute(call)) if known is None else call.choose(known)

    async def _compute(self, call: Call) -> Response:
        """Reads everything but the body, and calls the handler."""
        call.query = (
            validate_request(self.query, self._list_query(call)) if call.scope["query_string"] else self._no_query
        )
        if self.stated.place is not None:
            names = self.stated.place.model_fields
            call.place = validate_request(self.stated.place, {name: call.path_params[name] for name in names})
        version = call.path_params.get("version") if self.is_v2 else call.query.version if self._has_version else None
        if self._loads:
            served = call.served = await self._load(call, call.model_name, version)
            call.scope["state"].update(model=served.name, checkpoint=served.checkpoint)
        elif self.of_model and self.stated.scope != "admin":
            entry = call.parts.registry.choose(call.model_name, version)
            call.scope["state"].update(model=entry.name, checkpoint=entry.checkpoint)
        asked = _FORMATS.get(call.query.format or "") if self._has_format else None
        if asked or self.stated.media_types:
            call.media_type = asked or call.choose_media_type(self.stated.media_types)
        return await self.handler(call)

    async def _load(self, call: Call, name: str, version: str | None) -> Served:
        """The model that answers: in the version asked for, else of a request with windows perhaps a canary."""
        if version is None and self._draws:
            call.is_open = True
            versions = call.parts.registry.index().get(name)
            drawn = None if versions is None else versions.draw()
            if drawn is not None:
                with suppress(NotReadyError, NotFoundError):  # a canary that cannot answer fails no request
                    return await call.load(name, drawn)
        return await call.load(name, version)

    def _list_query(self, call: Call) -> dict[str, Any]:
        """The members of a query: a list where the model has one, else the last of that name."""
        query, fields = call.query_params, self.query.model_fields
        lists = {name for name, field in fields.items() if "list[" in str(field.annotation)}
        return {name: query.getlist(name) if name in lists else query[name] for name in query}


class Dispatch:
    """Middleware that takes a place for each request, and sends it to its operation; other paths are the app's.

    Operations are no routes of FastAPI or Starlette: to go through their routers takes a fifth of a forecast's time.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[OperationRoute], room: Room) -> None:
        self._app, self._routes, self._room = app, routes, room
        self._probes = Room(N_PROBES, 0, lambda: 1.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path, method = path_of(scope), scope["method"]
        room = self._probes if path in HEALTH or path == METRICS_PATH else self._room
        try:
            hold = room.enter(OWNER.get(), path.endswith(FORECASTS))
        except RequestError as error:
            return await send_error(error, scope, receive, send)
        with hold:
            HOLD.set(hold)
            for route in self._routes:
                if route.takes(method) and (found := route.path_regex.match(path)) is not None:
                    scope["route"], scope["path_params"] = route, found.groupdict()
                    return await route.answer(hold, scope, receive, send)
            if others := [route for route in self._routes if route.path_regex.match(path)]:
                scope["route"] = others[0]
                allowed = ", ".join(sorted({route.stated.method for route in others}))
                refusal = HTTPException(405, headers={"Allow": allowed})
                response = await answer_http_error(Request(scope, receive), refusal)
                return await response(scope, receive, send)
            await self._app(scope, receive, send)


def is_quick_to_read(body: bytes) -> bool:
    """Whether a body is parsed in less time than a hand-over to a thread is worth."""
    return len(body) * (16 if may_hold_series(body) else 1) <= READ_ON_LOOP


def routes_of(module: ModuleType) -> list[OperationRoute]:
    """The routes of the operations that a module declares."""
    routes: list[OperationRoute] = []
    for route in vars(module).values():
        if isinstance(route, OperationRoute):
            second = replace(route.stated, path=route.stated.also or "", is_documented=False)
            routes += [route, OperationRoute(second, route.handler)] if second.path else [route]
    return routes


def _read_deadline(call: Call) -> Deadline:
    """The deadline of a request, by its header or else the setting, and at most `max_request_timeout`."""
    given, settings = find_header(call.scope, _TIMEOUT), call.parts.settings
    try:
        seconds = settings.request_timeout if given is None else float(given)
    except ValueError:
        seconds = 0
    if given is not None and not 0 < seconds < inf:
        raise invalid_value(TIMEOUT_HEADER, "must be a number of seconds above 0")
    return Deadline.after(min(seconds, settings.max_request_timeout))
