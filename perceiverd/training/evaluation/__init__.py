"""How good a model is: held-out recordings, false alarms, stability, calibration, the report."""
