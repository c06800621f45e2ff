"""Types of the fixtures that run the real program."""

import subprocess
from collections.abc import Callable

Start = Callable[..., "subprocess.Popen[str]"]
"""The fixture `start`: runs `perceiverd ARGUMENTS` as a process with its output in the file `log`."""
Perceiverd = Callable[..., tuple[int, str, str]]
"""The fixture `perceiverd`: runs the command line in this process; exit status, standard output, standard error."""
