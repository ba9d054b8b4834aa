"""Speech encoders whose frames a decoder reads as vectors: torch modules behind one interface."""
