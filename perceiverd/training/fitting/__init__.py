"""What every fit shares: loop, optimiser, process group, progress."""
