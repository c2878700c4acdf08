"""The forward pass as one ONNX graph: windows in original units in, predictions in original units out."""

import os

# Since 1.29 the official builds of ONNX Runtime send usage data, including hashes of weights, to Microsoft, and write
# to the user's cache, unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
