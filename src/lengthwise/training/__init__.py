"""Training on a measured criterion, to the same weights whatever interrupts it."""
