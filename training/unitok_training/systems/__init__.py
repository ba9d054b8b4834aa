"""Published systems as recipes with a check of what they claim."""
