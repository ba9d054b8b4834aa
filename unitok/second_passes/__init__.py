"""Second passes: what a layout leaves open is filled when the span is finished, both ways at once."""
