"""Many hypothesis files into one: ROVER, selection, MBR, calibration, tuning."""
