"""Recognizers and synthesizers that a cascade is made of: unitok's own, other people's, any function."""
