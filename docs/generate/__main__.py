"""`python -m docs.generate`: write the pages and the files in configs/, and print which of them changed."""

from docs.generate import configs
from docs.generate.pages import REFERENCE, write_all

for name in write_all():
    print(f"written: {REFERENCE.name}/{name}")
for name in configs.write():
    print(f"written: {configs.CONFIGS.name}/{name}")
