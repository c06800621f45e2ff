"""Pictures and clips of events, kept by the worker process of a source."""
