"""The table of tasks: a task is a row of data, not a model."""
