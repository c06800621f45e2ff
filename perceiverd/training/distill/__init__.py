"""How the bundled model is made: shards, batches, distillation, and the last layer's fit to hours without events."""
