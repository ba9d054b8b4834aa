"""Systems of tokens alone, one file each."""
