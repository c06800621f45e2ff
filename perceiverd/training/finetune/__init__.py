"""A user's own clips into a model: manifest, clip cache, sampling, the fit."""
