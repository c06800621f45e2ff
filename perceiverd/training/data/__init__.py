"""Material to train on: packages, corpus, mixtures, images, ambient hours."""
