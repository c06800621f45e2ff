"""Rendered sounds: instruments, speech, tones."""
