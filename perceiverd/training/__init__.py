"""How the bundled model is made, and how a user fits a model to their own clips. Needs the extra `train`."""
