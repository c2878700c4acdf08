"""Every setting of the service, read once and handed to `create_app`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What can be set, by argument or by an environment variable ``KANSCOPE_{NAME}``.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        root_path: path under which a proxy serves the app, such as ``/kanscope``.
        models: a folder of checkpoints or one file; the bundled model where it is absent or an empty folder.
        poll_seconds: seconds between two looks for new, changed and deleted checkpoints; 0: never.
        torch_threads: threads of one tensor operation; more only helps models that are far larger than these.
        max_body_bytes: largest request body.
        max_windows: most windows of one request.
        max_points: most points of one edge's curve.
        cached_results: how many global results (importance, topologies, reports) are kept.
        cached_answers: bytes of answers that are kept as they were sent.
        max_queue: most requests that wait for the models at a time.
        request_timeout: seconds that a request waits for what is computed, unless its header says otherwise.
    """

    model_config = SettingsConfigDict(env_prefix="KANSCOPE_", env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = ""
    models: Path | None = None
    poll_seconds: float = Field(default=10.0, ge=0, le=86400)
    torch_threads: int = Field(default=1, ge=1)
    max_body_bytes: int = Field(default=8 << 20, ge=1)
    max_windows: int = Field(default=4096, ge=1)
    max_points: int = Field(default=2001, ge=2)
    cached_results: int = Field(default=64, ge=1)
    cached_answers: int = Field(default=64 << 20, ge=0)
    max_queue: int = Field(default=1024, ge=1)
    request_timeout: float = Field(default=30.0, gt=0, le=3600)
