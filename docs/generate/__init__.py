"""Writes the references of the documentation from the code: `make docs`, or `python -m docs.generate`.

`TEMPLATES` holds one Markdown file per page with placeholders; the modules here fill them. Loads the package only to
read it: opens no device and starts no daemon.
"""
