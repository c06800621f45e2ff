"""`python -m perceiverd` is `perceiverd`."""

from perceiverd.cli import main

if __name__ == "__main__":
    main()
