"""The forward pass as one ONNX graph: windows in original units in, predictions in original units out.

A frozen network is traced: it computes with `values.Value`s, which stand for tensors and add a node to the graph for
each operation (torch's ``__torch_function__`` protocol). Bases, activations and layers are therefore defined once, in
`network`; only splines and recurrent layers, which are faster in another form, are written here. Nothing here depends
on checkpoints.
"""
