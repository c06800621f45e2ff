"""Turns compressed media into frames and chunks, through FFmpeg."""
