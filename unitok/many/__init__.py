"""Many inputs from one command: what is given, as single inputs, and their answers in files that outlive a kill."""
