"""Kanscope as it is installed: `kanmodel`, and `kanscope.service`, which is the folder service beside this file.

In the wheel this is ``kanscope/__init__.py``, beside the same folder; see ``.ci/wheel.py``.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parent)]
