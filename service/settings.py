"""Every setting of the service, read once and handed to `create_app`."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kanmodel.errors import ConfigError

PREFIX = "KANSCOPE_"
# What Kubernetes puts into pods for each Service whose name begins with kanscope, such as KANSCOPE_PORT=tcp://10.0.0.1:80
SERVICE_LINK = re.compile(r"KANSCOPE_(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_.+)?)?)")

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Url = Annotated[str, Field(pattern=r"^([a-z0-9]+://|models:/).")]


class Settings(BaseSettings):
    """The settings, each by argument or by an environment variable ``KANSCOPE_{NAME}``.

    What stands below each is also in the help of ``kanscope serve`` and in the table of the site.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on."""
    root_path: str = ""
    """Path under which a proxy serves the app, such as `/kanscope`."""

    models: Url | Path | None = Field(default=None, union_mode="left_to_right")
    """A folder of checkpoints or one file, or the URL of one, `s3://`, `gs://`, `hf://`, `oci://`, `https://` or
    MLflow's `models:/name@alias`; the bundled model if it is not set."""
    model_name: str | None = None
    """Another name for the only model of the folder, such as that of a KServe InferenceService, whose clients and
    transformers ask for it."""
    trusted_keys: str | None = None
    """Files of public keys, separated by commas; models that none of them has signed are refused."""
    poll_seconds: float = Field(default=10.0, ge=0, le=86400)
    """Seconds between two scans for new, changed and deleted checkpoints; 0: never."""
    model_bytes: Count = 1 << 30
    """Estimated memory of the models; beyond it the least recently used are loaded again when a request needs them."""
    downloads: Path | None = None
    """Folder for models of a URL, which processes share; by default `kanscope` in `XDG_CACHE_HOME` or `~/.cache`."""
    download_bytes: Count = 2 << 30
    """Size of that folder, beyond which files are removed that the store no longer lists."""

    workers: int = Field(default=1, ge=1, le=256)
    """Processes that answer, each with its own copy of the models."""

    keys_file: Path | None = None
    """File of API keys, a line for each: `name scope[,scope] key [requests/minute]`; read again when it changes."""
    keys: SecretStr | None = None
    """API keys in the same form, separated by `;` or new lines."""
    no_auth: bool = False
    """Serve without keys on an address that others reach."""
    reference_windows: bool = True
    """Whether reference windows, which are training data, can be read one by one."""
    allowed_hosts: str = ""
    """Names, by commas, that the Host header may hold on a loopback address, beside its own."""
    allowed_origins: str = ""
    """Origins whose scripts may read answers (CORS), such as `https://example.org`, separated by commas."""
    repository_api: bool = False
    """Whether /v2/repository lists, loads and unloads models, with a key of the scope admin."""

    max_body_bytes: Count = 8 << 20
    """Largest request body."""
    max_json_depth: Count = 64
    """Deepest nesting of lists and objects in a body."""
    max_header_bytes: int = Field(default=64 << 10, ge=1024)
    """Largest request target and headers."""
    max_windows: Count = 4096
    """Most windows of one request."""
    max_path_nodes: Count = 2_000_000
    """Most path nodes of one request to explain, windows x outputs x baselines x 17, and as many more as `effects`
    take forecasts; or most forecasts of changed windows."""
    max_points: int = Field(default=2001, ge=2)
    """Most points of one edge's curve."""
    max_concurrent: Count = 512
    """Most requests that wait or are answered; more are 503, first of the client that has the most. Health and metrics
    have places of their own."""
    max_work_bytes: int = Field(default=384 << 20, ge=1 << 20)
    """Memory that bodies and answers may hold, and again what is computed; a body that does not fit is read later."""

    header_timeout: Positive = 10.0
    """Seconds in which the headers of a request must arrive, and for which a connection may have no request."""
    body_timeout: Positive = 30.0
    """Seconds in which the body of a request must arrive."""
    send_timeout: Positive = 30.0
    """Seconds for which a client may hold up an answer, besides the time that what it reads takes at 256 KiB/s."""
    request_timeout: float = Field(default=30.0, gt=0, le=3600)
    """Seconds that a request waits for its result, unless its header says otherwise."""
    max_request_timeout: float = Field(default=600.0, gt=0, le=86400)
    """Most seconds that a request waits for its result, whatever its header says."""
    shutdown_timeout: int = Field(default=25, ge=0)
    """Seconds in which accepted requests are finished after SIGTERM; a worker process that hangs is killed 5
    seconds later."""

    cached_results: Count = 64
    """Most global results (importance, topologies, reports) that are cached."""
    cached_answers: int = Field(default=64 << 20, ge=0)
    """Size of the cache of answers in bytes, keys included."""
    tracing: bool = False
    """Whether spans are sent to the OpenTelemetry collector of `OTEL_EXPORTER_OTLP_ENDPOINT`."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`json`, `console` for people, or `auto`: console on a terminal."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged: `debug`, `info`, `warning` or `error`."""

    record: HttpUrl | Path | None = Field(default=None, union_mode="left_to_right")
    """Folder of the record of forecasts and explanations, or `http(s)://` address that it is sent to."""
    record_inputs: str = ""
    """Features or columns whose values are recorded, separated by commas; `*` for all, `-name` for one that is not."""
    record_headers: str = ""
    """Headers of requests that are recorded, separated by commas."""
    record_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the requests that are recorded, drawn at random."""
    record_seconds: Positive = 1.0
    """Seconds between two writes: the most that is lost if the process is killed."""
    record_queue_bytes: Count = 64 << 20
    """Bytes that may wait to be recorded; what does not fit is counted and not recorded."""
    record_file_bytes: Count = 64 << 20
    """Size of a file, after which the next is begun."""
    record_days: Positive = 90.0
    """Days after which files are removed; `inf`: never."""
    record_bytes: Count = 10 << 30
    """Size of all files, beyond which the oldest are removed."""
    record_token: SecretStr | None = None
    """Sent to the address of the record as `Authorization: Bearer`."""

    monitor: Literal["off"] | Path | None = Field(default=None, union_mode="left_to_right")
    """File of what the monitor counts; without one it lasts as long as the service. `off`: nothing is counted."""
    monitor_seconds: Positive = 2.0
    """Seconds between two writes: the most that is lost if the process is killed."""
    monitor_share: float = Field(default=0.01, ge=0, le=1)
    """Share of the forecasts that are explained for the monitor, drawn at random."""
    monitor_cpu: float = Field(default=0.01, gt=0, le=1)
    """Share of a core that these explanations may take on average; a forecast drawn beyond it is not explained."""
    monitor_hours: Count = 840
    """Hours that are kept, and after which the receipt of a forecast is unknown; five weeks."""
    monitor_bytes: int = Field(default=64 << 20, ge=1 << 20)
    """Size of what is kept, beyond which the oldest hours are dropped."""
    receipt_key: SecretStr = Field(default_factory=lambda: SecretStr(token_urlsafe()), min_length=32)
    """Secret that signs the receipts of forecasts; by default one that is made at the start. Services that take
    outcomes of each other's forecasts need the same, such as the pods of a Deployment."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes answer at the same address."""
        return self.workers > 1


def describe_settings() -> Iterator[tuple[str, str, str]]:
    """Yields the environment variable, the default and the meaning of each setting; its default may be empty."""
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or field.default_factory else str(field.default)
        yield PREFIX + name.upper(), default, " ".join((field.description or "").split())


def choose_settings(**given: object) -> Settings:
    """The settings given that are not None, then those of the environment, then the defaults.

    Raises ConfigError if a setting has an invalid value, or a given name is not a setting.
    """
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name, value = PREFIX + "_".join(map(str, first["loc"])).upper(), first["input"]
        if first["loc"] == ("receipt_key",):
            raise ConfigError(f"{name} must have at least 32 characters") from None
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
            yield f"{name} is not a setting; " + (f"did you mean {near[0]}?" if near else "remove it")
