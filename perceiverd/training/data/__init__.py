"""Training material: packages, corpus, mixtures, images, hours without events. Knows nothing of teachers."""
