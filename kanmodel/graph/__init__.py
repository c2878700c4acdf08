"""The forward pass as one ONNX graph: windows in original units in, predictions in original units out.

A frozen network is traced: it computes on `values.Value`s, which stand for tensors and write a node for each operation
(torch's ``__torch_function__`` protocol). So bases, activations and layers have one definition, that of `network`; only
what is faster in another form, splines and recurrent layers, is written here. Nothing here knows checkpoints.
"""
