"""From media to events: cut windows, find stalls, tag, track events. No sockets, processes or files.

Import the modules: torch must stay out until a tagger is wanted.
"""
