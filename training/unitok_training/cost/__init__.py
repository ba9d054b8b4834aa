"""What a run needs before it is run: memory, time, devices."""
