"""Systems of text, tools and states around a model: one file each, or a folder of a subject."""
