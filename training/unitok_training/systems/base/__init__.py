"""What every system is made of: its description, the run folder of a check, small recipes, rare names."""
