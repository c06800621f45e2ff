"""Public networks that score the training material, and the layers that models get from them."""
