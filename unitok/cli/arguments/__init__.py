"""What several commands share: options, and the device and precision that are meant."""
