"""Floor 2: units or codes to waveform."""
