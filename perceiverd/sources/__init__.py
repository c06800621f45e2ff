"""Sources of audio and video: cameras, microphones, URLs, files. Each runs in a worker process that is restarted.

Knows no models, windows or messages. This face has the specifications alone and loads no driver, FFmpeg or ZeroMQ.
"""

from perceiverd.sources.specs import Camera, File, Microphone, Pipe, Source, Synthetic, Url

__all__ = ["Camera", "File", "Microphone", "Pipe", "Source", "Synthetic", "Url"]
