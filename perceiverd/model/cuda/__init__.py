"""The network on a GPU: separable cross-attends, one CUDA graph for each size of a batch, copies beside the work.

Everything but graphs, streams and pinned memory also runs on the CPU, where the tests compare it with `Perceiver`. It
knows no streams of cameras, sockets or time. This face loads no torch.
"""
