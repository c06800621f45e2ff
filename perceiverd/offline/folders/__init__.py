"""Tags many files into a folder, so that a killed run can be resumed. Knows no format and no network."""
