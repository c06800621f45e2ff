"""The network as an ONNX graph, built from a model's geometry. It loads neither torch nor the package `onnx`."""
