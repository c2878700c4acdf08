"""The Ray Serve engine: a deployment of replicas of the app behind Serve's proxies."""

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
from service.batch import join_cluster
from service.engines.proxies import proxy_variables
from service.settings import Settings, choose_settings
from service.telemetry.logs import configure_logging
from service.wire.errors import NotReadyError

logger = logging.getLogger(__name__)

NAME = "kanscope"
LOOK_SECONDS = 5.0  # between two checks whether the cluster is alive
GRACE = 10.0  # seconds that replicas get to stop, after the time limit of their requests


class Replica:
    """One replica: the app with its own models, and a health check for Ray."""

    def __init__(self, settings: Settings) -> None:
        configure_logging(settings)
        self._app = create_app(settings, serve.get_replica_context().replica_id.unique_id)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The app, in the replica's process; Serve runs its lifespan, which waits until the models are loaded."""
        return self._app

    async def check_health(self) -> None:
        """Raises NotReadyError if no model is ready; Ray then replaces the replica."""
        registry = self._app.state.parts.registry
        if not registry.ready:
            reasons = [f"{entry.name} {entry.condition}" for entry in registry.entries]
            raise NotReadyError(f"no model is ready: {'; '.join(reasons) or 'there is none'}")


def app(arguments: dict[str, str]) -> serve.Application:
    """Builds the application for ``serve run`` and for config files of Serve, whose `arguments` are settings.

    The address is Serve's, not the setting `host`, so the app assumes that other machines can reach it. Raises as
    `create_app` and `deploy`.
    """
    settings = choose_settings(**arguments, engine="ray", host="0.0.0.0")  # nosec B104
    create_app(settings)
    return deploy(settings)


def deploy(settings: Settings) -> serve.Application:
    """The app as a deployment that Ray scales by requests; raises ConfigError if the settings contradict each other.

    A replica itself refuses more than `max_concurrent` requests, with the service's errors; Ray's limits are higher,
    as backpressure for requests that arrive faster than it can refuse. Paths must mean the same on every node.
    """
    if settings.workers > 1:
        raise ConfigError("workers is a setting of the engine process; the engine ray has max_replicas instead")
    if settings.max_replicas < settings.min_replicas:
        raise ConfigError(f"max_replicas is {settings.max_replicas}, less than min_replicas, {settings.min_replicas}")
    scaling = AutoscalingConfig(
        min_replicas=settings.min_replicas,
        max_replicas=settings.max_replicas,
        target_ongoing_requests=settings.replica_requests,
        upscale_delay_s=10.0,  # a replica takes some seconds to start, so a shorter burst ends before it would help
        look_back_period_s=15.0,  # over which requests are averaged; more than Ray's sampling interval of 10
    )
    configure = serve.deployment(
        name=NAME,
        autoscaling_config=scaling,
        max_ongoing_requests=2 * settings.max_concurrent,
        max_queued_requests=settings.max_concurrent,
        graceful_shutdown_timeout_s=settings.shutdown_timeout,
        graceful_shutdown_wait_loop_s=0.5,
        max_surge_percent=25,  # replicas that a new deployment starts, at least one, before it stops as many old ones
        ray_actor_options={"num_cpus": settings.replica_cpus},
        logging_config=LoggingConfig(enable_access_log=False),  # the app writes its own
    )
    absolute = {name: value.absolute() for name, value in settings if isinstance(value, Path)}
    application: serve.Application = configure(serve.ingress()(Replica)).bind(settings.model_copy(update=absolute))
    return application


def serve_on_ray(settings: Settings) -> None:
    """Serves from replicas until SIGTERM or SIGINT, then drains them like a single process.

    The cluster is that of `join_cluster`. Raises SystemExit if it is gone, and ConfigError as `deploy`, or if Serve
    already runs in it, or proxies or replicas do not start.
    """
    if settings.port == 0:  # each proxy would listen on a different port
        raise ConfigError("the engine ray needs a port above 0")
    deployment = deploy(settings)
    ended = Event()
    ours = join_cluster()
    try:
        if serve.status().proxies:
            raise ConfigError("Ray Serve already runs in this cluster: deploy kanscope.service.engines.ray:app there")
        options = {name: getattr(settings, name) for name in ("host", "port", "root_path")}
        controller = {"runtime_env": {"env_vars": proxy_variables(settings)}}
        try:  # of a traceback the last line is the error
            serve.start(http_options=options, controller_options=controller)
        except (RayError, TimeoutError) as error:
            raise ConfigError(f"the proxies do not start: {str(error).strip().splitlines()[-1]}") from error
        try:
            serve.run(deployment, name=NAME)
        except RuntimeError as error:
            failed = serve.status().applications[NAME].deployments[NAME].message
            raise ConfigError(f"the replicas do not start: {failed.strip().splitlines()[-1]}") from error
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        address = f"http://{settings.host}:{settings.port}"
        logger.info("replicas are running on %s; the explorer is at %s/explorer", address, address)
        while not ended.wait(LOOK_SECONDS):
            if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
                logger.error("no node of the cluster is alive")
                sys.exit(1)
        ending = Thread(target=serve.delete, args=(NAME,), daemon=True)  # the cluster may stop in the meantime
        ending.start()
        ending.join(settings.shutdown_timeout + GRACE)
        if ending.is_alive():
            logger.error("the replicas did not stop in time")
        if not ours:
            serve.shutdown()  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()
