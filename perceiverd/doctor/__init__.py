"""`perceiverd doctor`: checks this machine as the daemon would use it, and advises. It does not know how to repair."""

from perceiverd.doctor.doctor import run

__all__ = ["run"]
