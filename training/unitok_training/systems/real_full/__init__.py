"""The full real run: the real run with hours of read speech, translation, a learning curve and emotions."""
