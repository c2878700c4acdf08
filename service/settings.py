"""Every setting of the service, read once and handed to `create_app`."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kanmodel.errors import ConfigError

PREFIX = "KANSCOPE_"
# What Kubernetes puts into pods for each Service whose name begins with kanscope, such as KANSCOPE_PORT=tcp://10.0.0.1:80
SERVICE_LINK = re.compile(r"KANSCOPE_(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_.+)?)?)")

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """The settings, each by argument or by an environment variable ``KANSCOPE_{NAME}``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"  # address to listen on
    port: int = Field(default=8000, ge=0, le=65535)  # port to listen on
    root_path: str = ""  # path under which a proxy serves the app, such as /kanscope

    models: Path | None = None  # folder of checkpoints or one file; if absent, or empty at first, the bundled model
    poll_seconds: float = Field(default=10.0, ge=0, le=86400)  # between two scans for changed checkpoints; 0: never
    model_bytes: Count = 1 << 30  # of models, estimated; beyond it the least recently used are unloaded until needed

    workers: int = Field(default=1, ge=1, le=256)  # processes that answer, each with its own copy of the models
    engine: Literal["process", "ray"] = "process"  # processes on this machine, or the replicas of a Ray cluster
    min_replicas: Count = 1  # smallest number of replicas on Ray
    max_replicas: Count = 4  # largest number of replicas on Ray
    replica_requests: Positive = 8.0  # target of concurrent requests per replica; Ray adds a replica above it
    replica_cpus: float = Field(default=1.0, ge=0)  # cores that Ray reserves for a replica
    torch_threads: Count = 1  # threads of one tensor operation; more than one only helps very large models

    keys_file: Path | None = None  # API keys, a line each: `name scope[,scope] key [requests/minute]`; read if changed
    keys: SecretStr | None = None  # API keys instead of a file, separated by `;` or new lines
    no_auth: bool = False  # serve without keys on an address that others reach
    reference_windows: bool = True  # whether reference windows, which are training data, can be listed and read
    allowed_hosts: str = ""  # names, by commas, that the Host header may hold on a loopback address, beside its own
    allowed_origins: str = ""  # whose scripts may read answers (CORS), such as https://example.org, by commas
    repository_api: bool = False  # whether /v2/repository lists, loads and unloads models, with a key of scope admin

    max_body_bytes: Count = 8 << 20  # largest request body
    max_json_depth: Count = 64  # deepest nesting of lists and objects in a body
    max_header_bytes: int = Field(default=64 << 10, ge=1024)  # largest request target and headers
    max_windows: Count = 4096  # most windows of one request
    # Most path nodes of one request to explain, windows x outputs x baselines x 17, and as many more as `effects` take
    # forecasts; or most forecasts of changed windows.
    max_path_nodes: Count = 2_000_000
    max_points: int = Field(default=2001, ge=2)  # most points of one edge's curve
    max_concurrent: Count = 512  # most concurrent requests; more are 503. Health and metrics have places of their own
    max_queue: Count = 256  # most requests that wait for a forecast
    max_explanations: Count = 104  # most explanations, global results and large answers that wait or are computed
    max_work_bytes: int = Field(default=384 << 20, ge=1 << 20)  # of pending requests; explanations half of it

    header_timeout: Positive = 10.0  # in which the headers of a request must arrive
    body_timeout: Positive = 30.0  # in which the body of a request must arrive
    send_timeout: Positive = 30.0  # in which a client must read 64 KiB of its answer, or the rest of it
    request_timeout: float = Field(default=30.0, gt=0, le=3600)  # of waiting for a result, if no header says otherwise
    max_request_timeout: float = Field(default=600.0, gt=0, le=86400)  # the longest, whatever the header says
    shutdown_timeout: int = Field(default=25, ge=0)  # after SIGTERM, to finish requests; 5 more, and a worker is killed

    cached_results: Count = 64  # most global results (importance, topologies, reports) that are cached
    cached_answers: int = Field(default=64 << 20, ge=0)  # size of the cache of answers in bytes, keys included
    tracing: bool = False  # whether spans are sent to the OpenTelemetry collector of OTEL_EXPORTER_OTLP_ENDPOINT
    log_format: Literal["auto", "json", "console"] = "auto"  # console is for people; auto: console on a terminal
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # the lowest that is logged

    # Folder of the record of forecasts and explanations, or address that it is sent to; absent: nothing is recorded.
    record: HttpUrl | Path | None = Field(default=None, union_mode="left_to_right")
    record_inputs: str = ""  # features whose values are recorded, by commas; `*`: all, `-name`: all others
    record_headers: str = ""  # headers of requests that are recorded, by commas
    record_share: float = Field(default=1.0, gt=0, le=1)  # of the requests that are recorded, drawn at random
    record_seconds: Positive = 1.0  # between two writes: the most that is lost if the process is killed
    record_queue_bytes: Count = 64 << 20  # that may wait to be recorded; what is more is counted and not recorded
    record_file_bytes: Count = 64 << 20  # of a file, after which the next one is begun
    record_days: float | None = Field(default=None, gt=0)  # after which files are removed
    record_bytes: Count | None = None  # of all files, beyond which the oldest are removed
    record_token: SecretStr | None = None  # sent to an address as `Authorization: Bearer`

    @property
    def is_shared(self) -> bool:
        """Whether other processes answer at the same address."""
        return self.workers > 1 or self.engine == "ray"


def choose_settings(**given: object) -> Settings:
    """The settings given that are not None, then those of the environment, then the defaults.

    Raises ConfigError if a setting has an invalid value, or a given name is not a setting.
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
    """Yields a warning for each environment variable that begins like a setting but is none, such as a misspelt one."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(name for name in names if name.upper().startswith(PREFIX)):
        if name.upper() not in known and not SERVICE_LINK.fullmatch(name):
            near = get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            yield f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "")
