"""The Ray Serve engine: a deployment of replicas of the app behind Serve's proxies.

It is started by ``kanscope serve --engine ray``, or by ``serve run service.engines.ray:app``.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from threading import Event, Thread

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from kanmodel.errors import ConfigError
from service.app import create_app
from service.engines import join_cluster
from service.engines.proxies import proxy_variables
from service.http.errors import NotReadyError
from service.settings import Settings, choose_settings
from service.telemetry.logs import configure_logging

logger = logging.getLogger(__name__)

NAME = "kanscope"
UPSCALE_SECONDS = 10.0  # a replica takes some seconds to start, so a shorter burst ends before it would help
LOOK_BACK_SECONDS = 15.0  # over which requests are averaged; Ray needs more than its sampling interval of 10
SURGE_PERCENT = 25  # replicas that a new deployment starts, at least one, before it stops as many old ones
LOOK_SECONDS = 5.0  # between two checks whether the cluster is alive
GRACE = 10.0  # seconds that replicas get to stop, after the time limit of their requests
ENDS = (signal.SIGTERM, signal.SIGINT)


class Replica:
    """One replica: the app with its own models, and a health check for Ray.

    Args:
        settings: every setting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: FastAPI | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Builds the app in the replica's process; Serve runs its lifespan, which waits until the models are loaded."""
        configure_logging(self._settings)
        self._app = create_app(self._settings, serve.get_replica_context().replica_id.unique_id)
        return self._app

    async def check_health(self) -> None:
        """Passes while the replica has a model that is ready.

        Raises:
            NotReadyError: no model is ready; Ray then replaces the replica.
        """
        assert self._app is not None
        registry = self._app.state.parts.registry
        if not registry.ready:
            reasons = [f"{entry.name} {entry.condition}" for entry in registry.entries]
            raise NotReadyError(f"no model is ready: {'; '.join(reasons) or 'there is none'}")


def app(arguments: dict[str, str]) -> serve.Application:
    """Builds the application for ``serve run service.engines.ray:app`` and for config files of Serve.

    The address is Serve's, not the setting `host`, so the app assumes that other machines can reach it.

    Args:
        arguments: settings that override the environment's, such as ``models=/models``.

    Raises:
        CheckpointError: there is nothing at the path of the models.
        ConfigError: a setting or the API keys are not valid, or API keys are required.
    """
    settings = choose_settings(**arguments, engine="ray", host="0.0.0.0")  # nosec B104
    create_app(settings)
    return deploy(settings)


def deploy(settings: Settings) -> serve.Application:
    """The app as a deployment that Ray scales by the number of running and waiting requests.

    A replica itself refuses more than `max_concurrent` requests, with the service's errors; Ray's limits are higher,
    as backpressure for requests that arrive faster than a replica can refuse them.

    Args:
        settings: every setting; relative paths must mean the same on every node.

    Raises:
        ConfigError: the settings contradict each other.
    """
    if settings.workers > 1:
        raise ConfigError("workers is a setting of the engine process; the engine ray has max_replicas instead")
    if settings.max_replicas < settings.min_replicas:
        raise ConfigError(f"max_replicas is {settings.max_replicas}, less than min_replicas, {settings.min_replicas}")
    scaling = AutoscalingConfig(
        min_replicas=settings.min_replicas,
        max_replicas=settings.max_replicas,
        target_ongoing_requests=settings.replica_requests,
        upscale_delay_s=UPSCALE_SECONDS,
        look_back_period_s=LOOK_BACK_SECONDS,
    )
    configure = serve.deployment(
        name=NAME,
        autoscaling_config=scaling,
        max_ongoing_requests=2 * settings.max_concurrent,
        max_queued_requests=settings.max_concurrent,
        graceful_shutdown_timeout_s=settings.shutdown_timeout,
        graceful_shutdown_wait_loop_s=0.5,
        max_surge_percent=SURGE_PERCENT,
        ray_actor_options={"num_cpus": settings.replica_cpus},
        logging_config=LoggingConfig(enable_access_log=False),  # the app writes its own
    )
    here = {
        name: path.absolute() for name in ("models", "keys_file") if isinstance(path := getattr(settings, name), Path)
    }
    application: serve.Application = configure(serve.ingress()(Replica)).bind(settings.model_copy(update=here))
    return application


def serve_on_ray(settings: Settings) -> None:
    """Serves from replicas until SIGTERM or SIGINT, then drains them like a single process.

    It joins the cluster at RAY_ADDRESS, or starts one on the loopback address if that is not set.

    Args:
        settings: every setting.

    Raises:
        ConfigError: the settings contradict each other, Serve already runs in the cluster, or proxies or replicas do
            not start.
        SystemExit: the cluster is gone.
    """
    if settings.port == 0:  # each proxy would listen on a different port
        raise ConfigError("the engine ray needs a port above 0")
    deployment = deploy(settings)
    ended = Event()
    ours = join_cluster()
    try:
        if serve.status().proxies:
            raise ConfigError("Ray Serve already runs in this cluster: deploy service.engines.ray:app there")
        start_proxies(settings)
        try:
            serve.run(deployment, name=NAME)
        except RuntimeError as error:
            raise ConfigError(f"the replicas do not start: {_last_complaint()}") from error
        for number in ENDS:
            signal.signal(number, lambda *_: ended.set())
        logger.info("replicas are running on http://%s:%d", settings.host, settings.port)
        while not ended.wait(LOOK_SECONDS):
            if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
                logger.error("no node of the cluster is alive")
                sys.exit(1)
        _end_replicas(settings)
        if not ours:
            serve.shutdown()  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def start_proxies(settings: Settings) -> None:
    """Starts Serve, with a proxy on every node that has a replica, on host and port of the settings.

    Raises:
        ConfigError: a proxy cannot listen there, or none has started within a minute.
    """
    options = {"host": settings.host, "port": settings.port, "root_path": settings.root_path}
    variables = {"env_vars": proxy_variables(settings)}
    try:
        serve.start(http_options=options, controller_options={"runtime_env": variables})
    except (RayError, TimeoutError) as error:
        raise ConfigError(f"the proxies do not start: {_last_line(str(error))}") from error


def _end_replicas(settings: Settings) -> None:
    """Drains the replicas; with a time limit, because the cluster may stop in the meantime."""
    ending = Thread(target=serve.delete, args=(NAME,), daemon=True)
    ending.start()
    ending.join(settings.shutdown_timeout + GRACE)
    if ending.is_alive():
        logger.error("the replicas did not stop in time")


def _last_complaint() -> str:
    """The error that a replica failed with."""
    return _last_line(serve.status().applications[NAME].deployments[NAME].message)


def _last_line(text: str) -> str:
    """The error itself, the last line of a traceback."""
    return text.strip().splitlines()[-1]
