"""Several steps around one model: cascades, tools, routing, dialogue."""
