"""Compressed media into frames and chunks, through FFmpeg."""
