"""The model in MLServer, as a custom runtime following its documentation.

    python peer_mlserver.py CHECKPOINT PORT

In one process, with one torch thread and adaptive batching, with the wait of a millisecond that is best for 64
connections; without its access log.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

from kanmodel.checkpoint import load_checkpoint

MAX_BATCH, BATCH_SECONDS = 64, 0.001


class Forecaster(MLModel):
    """The network as trained, with the units and responses of the service."""

    async def load(self) -> bool:
        """Loads the checkpoint."""
        model = load_checkpoint(Path(self.settings.parameters.uri))
        self._network, self._scaling, self._shape = model.network, model.scaling, model.config.window_shape
        self._mean, self._scale = map(torch.from_numpy, (model.scaling.feature_mean, model.scaling.feature_scale))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The forecasts for the windows of one batch."""
        windows = NumpyCodec.decode_input(payload.inputs[0])
        if windows.ndim != 3 or windows.shape[1:] != self._shape or not np.isfinite(windows).all():
            raise ValueError(f"windows must have shape (n, {self._shape}) and be finite")
        with torch.inference_mode():
            outputs = self._network(((torch.from_numpy(windows) - self._mean) / self._scale).float())
        predictions = NumpyCodec.encode_output("predictions", self._scaling.outputs_to_original(outputs))
        return InferenceResponse(model_name=self.name, outputs=[predictions])


async def serve(checkpoint: Path, port: int) -> None:
    """Serves until the process is stopped."""
    settings = Settings(
        debug=False, host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2, parallel_workers=0
    )
    model = ModelSettings(
        name=checkpoint.stem,
        implementation=Forecaster,
        max_batch_size=MAX_BATCH,
        max_batch_time=BATCH_SECONDS,
        parameters=ModelParameters(uri=str(checkpoint)),
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.INFO)  # the access log
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
