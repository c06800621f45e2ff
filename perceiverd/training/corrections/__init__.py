"""Learns from the operator's corrections: rows of the last layer that change as little as they can. Opens no device."""
