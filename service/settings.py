"""Every setting of the service, read once and handed to `create_app`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kanmodel.errors import ConfigError

PREFIX = "KANSCOPE_"
# What Kubernetes puts into pods for each Service whose name begins with kanscope, such as KANSCOPE_PORT=tcp://10.0.0.1:80.
SERVICE_LINK = re.compile(r"KANSCOPE_(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_.+)?)?)")


class Settings(BaseSettings):
    """The settings, each by argument or by an environment variable ``KANSCOPE_{NAME}``.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        root_path: path under which a proxy serves the app, such as ``/kanscope``.
        models: a folder of checkpoints or one file; the bundled model if it is absent, and for a folder that is empty
            at the start until one of its models is ready.
        poll_seconds: seconds between two scans for new, changed and deleted checkpoints; 0: never.
        model_bytes: estimated memory of the models; beyond it the least recently used are loaded again when a request
            needs them.
        workers: processes that answer, each with its own copy of the models.
        engine: ``process`` answers from this machine, ``ray`` from the replicas of a Ray cluster.
        min_replicas: smallest number of replicas on Ray.
        max_replicas: largest number of replicas on Ray.
        replica_requests: target of concurrent requests per replica; Ray adds a replica above it.
        replica_cpus: cores that Ray reserves for a replica.
        torch_threads: threads of one tensor operation; more than one only helps very large models.
        keys_file: file of API keys, a line for each: ``name scope[,scope] key [requests/minute]``; read again when it
            changes.
        keys: API keys in the same form, separated by ``;`` or new lines.
        no_auth: serve without keys on an address that others reach.
        reference_windows: whether reference windows, which are training data, can be listed and read.
        allowed_hosts: names, by commas, that the Host header may hold on a loopback address, beside its own.
        allowed_origins: origins whose scripts may read answers (CORS), such as ``https://example.org``, separated by
            commas.
        repository_api: whether /v2/repository lists, loads and unloads models, with a key of the scope admin.
        max_body_bytes: largest request body.
        max_json_depth: deepest nesting of lists and objects in a body.
        max_header_bytes: largest request target and headers.
        max_windows: most windows of one request.
        max_path_nodes: most path nodes of one request to explain, windows x outputs x baselines x 17, and as many more
            as `effects` take forecasts; or most forecasts of changed windows.
        max_points: most points of one edge's curve.
        max_concurrent: most concurrent requests; more are 503. Health and metrics have places of their own.
        max_queue: most requests that wait for a forecast.
        max_explanations: most explanations, global results and large answers that wait or are computed.
        max_work_bytes: memory that pending requests may hold; explanations half of it.
        header_timeout: seconds in which the headers of a request must arrive.
        body_timeout: seconds in which the body of a request must arrive.
        send_timeout: seconds in which a client must read 64 KiB of its answer, or the rest of it.
        request_timeout: seconds that a request waits for its result, unless its header says otherwise.
        max_request_timeout: most seconds that a request waits for its result, whatever its header says.
        shutdown_timeout: seconds in which accepted requests are finished after SIGTERM; a worker that hangs is killed
            5 seconds later.
        cached_results: most global results (importance, topologies, reports) that are cached.
        cached_answers: size of the cache of answers in bytes, keys included.
        tracing: whether spans are sent to the OpenTelemetry collector of ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        log_format: ``json``, ``console`` for people, or ``auto``: console on a terminal.
        log_level: lowest level that is logged: ``debug``, ``info``, ``warning`` or ``error``.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = ""
    models: Path | None = None
    poll_seconds: float = Field(default=10.0, ge=0, le=86400)
    model_bytes: int = Field(default=1 << 30, ge=1)
    workers: int = Field(default=1, ge=1, le=256)
    engine: Literal["process", "ray"] = "process"
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=4, ge=1)
    replica_requests: float = Field(default=8.0, gt=0)
    replica_cpus: float = Field(default=1.0, ge=0)
    torch_threads: int = Field(default=1, ge=1)
    keys_file: Path | None = None
    keys: SecretStr | None = None
    no_auth: bool = False
    reference_windows: bool = True
    allowed_hosts: str = ""
    allowed_origins: str = ""
    repository_api: bool = False
    max_body_bytes: int = Field(default=8 << 20, ge=1)
    max_json_depth: int = Field(default=64, ge=1)
    max_header_bytes: int = Field(default=64 << 10, ge=1024)
    max_windows: int = Field(default=4096, ge=1)
    max_path_nodes: int = Field(default=2_000_000, ge=1)
    max_points: int = Field(default=2001, ge=2)
    max_concurrent: int = Field(default=512, ge=1)
    max_queue: int = Field(default=256, ge=1)
    max_explanations: int = Field(default=104, ge=1)
    max_work_bytes: int = Field(default=384 << 20, ge=1 << 20)
    header_timeout: float = Field(default=10.0, gt=0)
    body_timeout: float = Field(default=30.0, gt=0)
    send_timeout: float = Field(default=30.0, gt=0)
    request_timeout: float = Field(default=30.0, gt=0, le=3600)
    max_request_timeout: float = Field(default=600.0, gt=0, le=86400)
    shutdown_timeout: int = Field(default=25, ge=0)
    cached_results: int = Field(default=64, ge=1)
    cached_answers: int = Field(default=64 << 20, ge=0)
    tracing: bool = False
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def is_shared(self) -> bool:
        """Whether other processes answer at the same address."""
        return self.workers > 1 or self.engine == "ray"


def choose_settings(**given: object) -> Settings:
    """The settings given that are not None, then those of the environment, then the defaults.

    Raises:
        ConfigError: a setting has an invalid value, or a given name is not a setting.
    """
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name, value = PREFIX + "_".join(map(str, first["loc"])).upper(), first["input"]
        reason = first["msg"].lower()
        if name == "KANSCOPE_PORT" and "://" in str(value):
            reason = "Kubernetes sets this for a Service named kanscope; set enableServiceLinks: false in the pod"
        raise ConfigError(f"{name} is {value!r}: {reason}") from error


def check_variables(names: Iterable[str]) -> Iterator[str]:
    """Warnings about environment variables that begin like settings but are none, such as a misspelt one.

    Args:
        names: names of environment variables.
    """
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(name for name in names if name.upper().startswith(PREFIX)):
        if name.upper() not in known and not SERVICE_LINK.fullmatch(name):
            near = get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            yield f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "")
