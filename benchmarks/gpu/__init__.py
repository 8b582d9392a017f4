"""What runs on a GPU alone: checks and timings, one JSON line a result."""
