"""`python -m perceiverd` is `perceiverd`."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it with status 130, even while it is loading."""
    try:
        from perceiverd import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
