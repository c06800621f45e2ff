"""What a program has told systemd: a test has the socket in systemd's place."""

import select
import socket


def read_waiting(systemd: socket.socket) -> list[str]:
    """The notifications that wait. A socket may hold only ten, and the program drops the next."""
    waiting = list[str]()
    while select.select([systemd], [], [], 0)[0]:
        waiting.append(systemd.recv(4096).decode())
    return waiting
