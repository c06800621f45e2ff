"""How fast perceiverd is on this machine: time per window, and streams at once. Import the modules."""
