"""One file a subject: parse, call one function, print."""
