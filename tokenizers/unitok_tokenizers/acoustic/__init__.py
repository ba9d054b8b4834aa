"""Acoustic codecs: samples to codes and back, behind one interface. One file each."""
