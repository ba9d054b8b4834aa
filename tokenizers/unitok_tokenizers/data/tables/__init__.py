"""Tables of other tools, each read by a file of its own, behind one registry (`registry.open_table`)."""
