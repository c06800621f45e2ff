"""Words that all packages share: frames and chunks, labels, clock, errors, secrets, logs, systemd.

Knows nothing else of perceiverd, and loads no ZeroMQ, torch, FFmpeg or OpenCV. Import the modules.
"""
