"""Batch explanation of whole tables: files in, a folder of parquet files out, in chunks that any engine computes."""

import os
from dataclasses import dataclass
from typing import Any, Literal

from kanmodel.errors import DataError

EngineName = Literal["threads", "ray"]
PART_WINDOWS = 2048  # rows of the table per file of the result
LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by the address that other machines reach, but keeps this one


@dataclass(frozen=True)
class Csv:
    """How csv files are written: what separates columns, and the decimal mark; raises DataError for others."""

    separator: str = ","
    decimal: Literal[".", ","] = "."

    def __post_init__(self) -> None:
        if len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\r\n':
            raise DataError(f"--separator must be one character, such as ';', but is {self.separator!r}")
        if self.decimal not in (".", ",") or self.decimal == self.separator:
            other = "'.' or ','" if self.decimal not in (".", ",") else "another mark than --separator"
            raise DataError(f"--decimal must be {other}, but is {self.decimal!r}")


PLAIN = Csv()


def join_cluster(num_cpus: int | None = None, **options: Any) -> None:
    """Joins the Ray cluster at ``RAY_ADDRESS``, or starts one on the loopback address if that is not set.

    A started one has `num_cpus` cores, None for all, and ends with the process. `options` are other arguments of
    `ray.init`.
    """
    import ray  # here, since it is an extra

    address = os.environ.get("RAY_ADDRESS") or "local"  # Ray's name for a cluster that ends with the process
    if address == "local":
        options |= {"num_cpus": num_cpus, "include_dashboard": False, "_node_ip_address": LOOPBACK}
    ray.init(address, **options)
