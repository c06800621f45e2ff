"""One worker process per source: start, watch, restart, and the messages between the two."""
