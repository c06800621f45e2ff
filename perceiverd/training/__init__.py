"""How the bundled model was made: recipe, corpus, teachers, mixtures, pool. Needs the extra `train`."""
