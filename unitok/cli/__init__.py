"""The roof: commands that parse, call one function and print."""
