"""How good a model is on labelled files of a user: manifests, measures, their tables and pages. Trains nothing."""
