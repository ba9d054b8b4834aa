"""Networks that encoders are made of, without what reads recordings."""
