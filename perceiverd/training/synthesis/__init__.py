"""Rendered sounds with exact labels: instruments, speech, tones. Knows nothing of corpora."""
