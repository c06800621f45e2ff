"""The service: one loop that takes media, cuts windows, tags, tracks and publishes; reload, metrics, snapshots.

It does not know how a device is opened or how ZeroMQ is set up. Import the modules.
"""
