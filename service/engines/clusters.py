"""The Ray cluster of a command: the one of `RAY_ADDRESS`, or a local one that ends with it."""

from __future__ import annotations

import os
from typing import Any

import ray

OWN = "local"  # Ray's word for a cluster that lasts as long as the process
LOOPBACK = "127.0.0.2"  # which Ray leaves as it is: it takes 127.0.0.1 for the address that other machines reach


def join_cluster(num_cpus: int | None = None, **options: Any) -> bool:
    """Joins the cluster that ``RAY_ADDRESS`` names, else starts one on the loopback address.

    Args:
        num_cpus: cores of one that is started; None for all.
        options: others of `ray.init`.

    Returns:
        Whether it is one that was started, and ends with the process.
    """
    address = os.environ.get("RAY_ADDRESS") or OWN
    if address == OWN:
        ray.init(OWN, num_cpus=num_cpus, include_dashboard=False, _node_ip_address=LOOPBACK, **options)
    else:
        ray.init(address, **options)
    return address == OWN
