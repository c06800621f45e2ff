"""Sources: cameras, microphones, URLs, files; each runs in a worker process that is restarted.

Knows no models, windows or messages.
"""
