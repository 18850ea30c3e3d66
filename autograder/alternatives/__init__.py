"""Right answers that are not the reference: every check must let them pass."""
