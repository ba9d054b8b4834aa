"""Pages that show what a run has found."""
