"""The model in KServe's Python server, as a custom predictor following its documentation.

    python peer_kserve.py CHECKPOINT PORT

Without its access log, and with one torch thread. It has no batching of its own: that is a container beside it,
which waits for a time or a number of requests.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import kserve
import numpy as np
import torch

from kanmodel.checkpoint import load_checkpoint


class Forecaster(kserve.Model):
    """The network as trained, with the units and responses of the service."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(checkpoint.stem)
        model = load_checkpoint(checkpoint)
        self._network, self._scaling, self._shape = model.network, model.scaling, model.config.window_shape
        self._mean, self._scale = map(torch.from_numpy, (model.scaling.feature_mean, model.scaling.feature_scale))
        self.ready = True

    def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        """The forecasts for the windows of one request."""
        windows = np.array(payload["instances"])
        if windows.ndim != 3 or windows.shape[1:] != self._shape or not np.isfinite(windows).all():
            raise kserve.errors.InvalidInput(f"instances must have shape (n, {self._shape}) and be finite")
        with torch.inference_mode():
            outputs = self._network(((torch.from_numpy(windows) - self._mean) / self._scale).float())
        return {"predictions": self._scaling.outputs_to_original(outputs).tolist()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.INFO)  # the access log
    server = kserve.ModelServer(
        http_port=int(sys.argv[2]), workers=int(sys.argv[3]), enable_grpc=False, enable_latency_logging=False
    )
    server.start([Forecaster(Path(sys.argv[1]))])
