"""`python -m docs.generate`: write the pages and print which of them changed."""

from docs.generate.pages import REFERENCE, write_all

for name in write_all():
    print(f"written: {REFERENCE.name}/{name}")
