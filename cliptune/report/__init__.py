"""Pictures and pages of runs and sweeps, made from their directories alone."""
