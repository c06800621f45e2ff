"""The Perceiver: geometry, weights, network, fast inference, import of public checkpoints.

Knows no sockets, devices or time. Import the modules.
"""
