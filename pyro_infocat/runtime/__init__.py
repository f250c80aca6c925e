"""Where a run computes: its device, its processes and its random numbers."""
