"""Every setting of the service, read once and handed to `create_app`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kanmodel.errors import ConfigError


class Settings(BaseSettings):
    """What can be set, by argument or by an environment variable ``KANSCOPE_{NAME}``.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        root_path: path under which a proxy serves the app, such as ``/kanscope``.
        models: a folder of checkpoints or one file; the bundled model where it is absent, or a folder that is empty
            from the start.
        poll_seconds: seconds between two looks for new, changed and deleted checkpoints; 0: never.
        workers: processes that answer, each with its own copy of the models.
        engine: ``process`` answers from this machine, ``ray`` from the replicas of a Ray cluster.
        min_replicas: replicas that Ray keeps, however little is asked.
        max_replicas: most replicas that Ray starts.
        replica_requests: requests at a time that one replica is meant to have; while there are more, Ray adds one.
        replica_cpus: cores that Ray sets aside for a replica.
        torch_threads: threads of one tensor operation; more only helps models that are far larger than these.
        keys_file: file of API keys, a line for each: ``name scope[,scope] key [requests/minute]``; read again when it
            changes.
        keys: API keys in the same form, separated by ``;`` or new lines.
        no_auth: serve without keys on an address that others reach.
        reference_windows: whether reference windows, which are training data, can be listed and read.
        allowed_hosts: names, by commas, that the Host header may hold on a loopback address, beside its own.
        allowed_origins: pages of other hosts whose scripts may read answers (CORS), such as ``https://example.org``, by
            commas.
        repository_api: whether models are listed, loaded and unloaded by /v2/repository, with a key of the scope admin.
        max_body_bytes: largest request body.
        max_json_depth: deepest nesting of lists and objects in a body.
        max_header_bytes: most bytes of a request's target and headers.
        max_windows: most windows of one request.
        max_path_nodes: most path nodes of one request to explain, windows x outputs x baselines x 17, and as many more
            as `effects` take forecasts; or most forecasts of changed windows.
        max_points: most points of one edge's curve.
        max_concurrent: most requests that are answered at once; more are 503. Health routes always answer.
        max_queue: most requests that wait for a forecast at a time.
        max_explanations: most explanations, global results and large answers that wait or are computed at a time.
        max_work_bytes: memory that requests may hold while they are read, computed and answered; explanations half.
        header_timeout: seconds in which the headers of a request must arrive.
        body_timeout: seconds in which the body of a request must arrive.
        send_timeout: seconds in which a client must take 64 KiB of its answer, or what is left of it.
        request_timeout: seconds that a request waits for what is computed, unless its header says otherwise.
        shutdown_timeout: seconds that requests have to end once the process is told to stop.
        cached_results: how many global results (importance, topologies, reports) are kept.
        cached_answers: bytes of answers that are kept as they were sent, with what they are found by.
        tracing: whether spans of requests go to the OpenTelemetry collector that ``OTEL_EXPORTER_OTLP_ENDPOINT`` names.
        log_format: ``json``, ``console`` for people, or ``auto``: console on a terminal.
        log_level: the least that is logged, ``debug``, ``info``, ``warning`` or ``error``.
    """

    model_config = SettingsConfigDict(env_prefix="KANSCOPE_", env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = ""
    models: Path | None = None
    poll_seconds: float = Field(default=10.0, ge=0, le=86400)
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
    max_explanations: int = Field(default=64, ge=1)
    max_work_bytes: int = Field(default=384 << 20, ge=1 << 20)
    header_timeout: float = Field(default=10.0, gt=0)
    body_timeout: float = Field(default=30.0, gt=0)
    send_timeout: float = Field(default=30.0, gt=0)
    request_timeout: float = Field(default=30.0, gt=0, le=3600)
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
    """The settings of the environment, under those given that are not None.

    Raises:
        ConfigError: a setting has a value that it can't have, or there is none of a name that was given.
    """
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "KANSCOPE_" + "_".join(map(str, first["loc"])).upper()
        raise ConfigError(f"{name} is {first['input']!r}: {first['msg'].lower()}") from error
