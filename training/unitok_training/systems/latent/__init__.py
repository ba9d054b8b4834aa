"""Systems whose speech stands as vectors in a prompt: one file each, recipe, check and what it must show."""
