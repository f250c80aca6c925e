"""Training: the loop, a step, schedules, random restarts and the collapse monitor."""
