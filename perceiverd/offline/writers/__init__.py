"""How results of files are written: a module for each family of formats, `formats` for their names. Opens no file."""
