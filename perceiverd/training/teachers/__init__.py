"""Public networks that teach, and the layers that are adopted from them."""
