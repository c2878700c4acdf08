"""Shadows compute beside the version that answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
from virtual import VirtualWorker, run_virtually

from service.compute import Compute
from service.models.repository import Choice
from service.room import HOLD
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.wire.security import OWNER
from service.work.shadows import Shadows


def test_shadows_are_charged_to_no_client():
    """The turn of a shadow's forecast is that of the service, whosever request it copies, and it holds no place."""
    model = SimpleNamespace(predict=lambda windows: windows[:, 0])
    versions = SimpleNamespace(choice=Choice(default="1", shadow={"2": 1.0}))
    registry = SimpleNamespace(
        index=lambda: {"m": versions}, get=lambda *_: SimpleNamespace(name="m", version="2", model=model)
    )
    watched = []

    async def scenario():
        compute = Compute(Settings(), Metrics())
        shadows = Shadows(registry, compute, Metrics(), SimpleNamespace(watch=lambda *them: watched.append(them)))
        OWNER.set("client")
        compute._loop = asyncio.get_running_loop()
        with compute.room.enter("client") as hold:
            HOLD.set(hold)
            shadows.offer(SimpleNamespace(name="m", version="1"), np.ones((3, 2, 1)))
            await asyncio.sleep(0)
            (job,) = compute._waiting
            (waiter,) = job.waiters
            assert (job.owner, waiter.owner, waiter.hold, hold.give_way) == ("", "", None, None)
        compute.start(VirtualWorker)
        await asyncio.sleep(100)

    run_virtually(scenario())
    assert len(watched) == 1
