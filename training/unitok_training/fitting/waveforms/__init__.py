"""What makes waveforms: vocoders, synthesizers of units, and a codec beside its vocoder."""
