"""Batch explanation of whole tables: files in, a folder of parquet files out, in chunks that any engine computes.

tables     files -> frames, a bounded number of rows at a time
chunks     frames -> rows of numbers, with the reasons for rejected ones -> numbered chunks of windows
parts      a chunk, explained -> one parquet file in the folder of the result
run        a whole run, resumed from the finished parts, in threads of this process
cluster    the engine that explains on Ray
"""

from typing import Literal

EngineName = Literal["threads", "ray"]
PART_WINDOWS = 2048  # rows of the table per file of the result
