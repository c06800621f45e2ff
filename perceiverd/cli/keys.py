"""`perceiverd keys`: makes a pair of keys and explains where each file belongs. Never prints a secret."""

from __future__ import annotations

from pathlib import Path

from perceiverd.wire.keys import create_pair


def new_pair(name: str, folder: Path) -> None:
    """Write `NAME.key` and `NAME.key_secret` into the folder, and print what to do with them. Raises ConfigError."""
    public, secret = create_pair(name, folder)
    print(f"public  {public}  (give it to the other side)")
    print(f"secret  {secret}  (keep it on this machine)")
    print()
    print("If the daemon uses this pair, write into its configuration:")
    print(f'  [publish]\n  secret_key = "{secret.resolve()}"\n  client_keys = "FOLDER"')
    print(f"and give {public.name} to its clients.")
    print(f"If a client uses this pair, copy {public.name} into the daemon's FOLDER and run the client with its keys:")
    print(f"  perceiverd watch tcp://HOST:PORT --server-key DAEMON.key --secret-key {secret}")
