"""How good the approximate posterior is: gaps, calibration, export."""
