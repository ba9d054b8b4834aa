"""Speech encoders: recordings to frames. One file each, and their networks."""
