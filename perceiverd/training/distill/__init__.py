"""How the bundled model is made: shards, batches, distillation, the head for quiet."""
