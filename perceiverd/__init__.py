"""perceiverd: cameras and microphones in, AudioSet labels out, over ZeroMQ."""

__version__ = "0.1.0"
