"""Is this machine fit to run perceiverd? Checks and advice; changes nothing. Import the modules."""
