"""The service on Ray: replicas of the app behind the proxies of Ray Serve.

``kanscope serve --engine ray`` starts it, and so does ``serve run service.engines.ray:app``.
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
from service.engines.clusters import join_cluster
from service.engines.proxies import proxy_variables
from service.http.errors import NotReadyError
from service.settings import Settings, choose_settings
from service.telemetry.logs import configure_logging

logger = logging.getLogger(__name__)

NAME = "kanscope"
UPSCALE_SECONDS = 10.0  # a replica takes some seconds to start, so a burst that is shorter is better waited for
LOOK_BACK_SECONDS = 15.0  # over which requests are averaged; Ray wants more than the 10 between two of its counts
SURGE_PERCENT = 25  # replicas that a new deployment starts, at least one, before it ends as many old ones
LOOK_SECONDS = 5.0  # between two looks whether the cluster lives
GRACE = 10.0  # seconds in which replicas end after the time that their requests have
ENDS = (signal.SIGTERM, signal.SIGINT)


class Replica:
    """One replica: the app with its own models, which Ray asks for its health.

    Args:
        settings: every setting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: FastAPI | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The app, as Serve asks for it in the replica's process; it runs its lifespan, and so waits for the models."""
        configure_logging(self._settings)
        self._app = create_app(self._settings, serve.get_replica_context().replica_id.unique_id)
        return self._app

    async def check_health(self) -> None:
        """Passes while the replica has a model that answers.

        Raises:
            NotReadyError: it has none; Ray replaces the replica.
        """
        assert self._app is not None
        registry = self._app.state.parts.registry
        if not registry.ready:
            reasons = [f"{entry.name} {entry.condition}" for entry in registry.entries]
            raise NotReadyError(f"no model answers: {'; '.join(reasons) or 'there is none'}")


def app(arguments: dict[str, str]) -> serve.Application:
    """What ``serve run service.engines.ray:app`` and a config file of Serve deploy.

    Serve, not the setting `host`, says where it listens, so the app takes others to reach it.

    Args:
        arguments: settings that differ from the environment's, such as ``models=/models``.

    Raises:
        CheckpointError: there is nothing where the settings say the models are.
        ConfigError: a setting or the API keys cannot be used, or there must be keys.
    """
    settings = choose_settings(**arguments, engine="ray", host="0.0.0.0")  # nosec B104
    create_app(settings)
    return deploy(settings)


def deploy(settings: Settings) -> serve.Application:
    """The app as a deployment, whose replicas Ray adds and ends by the requests that run or wait.

    A replica refuses more than `max_concurrent` requests itself, in the form of every error; the bounds of Ray lie
    above, for what arrives faster than it can refuse.

    Args:
        settings: every setting; its paths are those of this process, and mean the same on every node.

    Raises:
        ConfigError: settings do not go together.
    """
    if settings.workers > 1:
        raise ConfigError("workers are of the engine process; replicas of the engine ray are set by max_replicas")
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
        logging_config=LoggingConfig(enable_access_log=False),  # the app has its own
    )
    here = {
        name: path.absolute() for name in ("models", "keys_file") if isinstance(path := getattr(settings, name), Path)
    }
    application: serve.Application = configure(serve.ingress()(Replica)).bind(settings.model_copy(update=here))
    return application


def serve_on_ray(settings: Settings) -> None:
    """Serves from replicas until SIGTERM or SIGINT, and then ends them as a single process ends.

    It joins the cluster that RAY_ADDRESS names, else it starts one of its own on the loopback address.

    Args:
        settings: every setting.

    Raises:
        ConfigError: settings do not go together, Serve runs in the cluster already, or proxies or replicas do not
            start.
        SystemExit: the cluster is gone.
    """
    if settings.port == 0:  # each proxy would listen on another one
        raise ConfigError("the engine ray needs a port above 0")
    deployment = deploy(settings)
    ended = Event()
    ours = join_cluster()
    try:
        if serve.status().proxies:
            raise ConfigError("Ray Serve runs in this cluster already: deploy service.engines.ray:app there")
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
                logger.error("no node of the cluster lives")
                sys.exit(1)
        _end_replicas(settings)
        if not ours:
            serve.shutdown()  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def start_proxies(settings: Settings) -> None:
    """Starts Serve: on every node that has a replica, a proxy listens where the settings say.

    Raises:
        ConfigError: a proxy cannot listen there, or none has started after a minute.
    """
    options = {"host": settings.host, "port": settings.port, "root_path": settings.root_path}
    variables = {"env_vars": proxy_variables(settings)}
    try:
        serve.start(http_options=options, controller_options={"runtime_env": variables})
    except (RayError, TimeoutError) as error:
        raise ConfigError(f"the proxies do not start: {_last_line(str(error))}") from error


def _end_replicas(settings: Settings) -> None:
    """Has the replicas end what they have accepted; not for ever, since the cluster may end meanwhile."""
    ending = Thread(target=serve.delete, args=(NAME,), daemon=True)
    ending.start()
    ending.join(settings.shutdown_timeout + GRACE)
    if ending.is_alive():
        logger.error("the replicas have not ended in time")


def _last_complaint() -> str:
    """What a replica ended with."""
    return _last_line(serve.status().applications[NAME].deployments[NAME].message)


def _last_line(text: str) -> str:
    """Of a traceback, the error itself."""
    return text.strip().splitlines()[-1]
