"""The web page and its API: a subscriber of daemons and a reader of the history that answers browsers.

It depends on no model, no device and no part of the daemon. It needs the extra `web`. The page is in `static`.
"""
