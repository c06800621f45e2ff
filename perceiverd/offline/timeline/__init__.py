"""The HTML timeline of a file: what is gathered while the file is tagged, and the page that is made of it.

Knows no decoder and no model. Import the modules.
"""
