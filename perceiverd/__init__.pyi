from perceiverd.offline.library import tag as tag

__version__: str
