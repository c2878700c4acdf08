"""The folder service as `kanscope.service`, in an editable install; the wheel has a package of that name."""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2])]
