"""What many commands share.

Options, and the device and precision that are meant.
"""
