"""The latent way in: frames of a speech encoder to vectors at `<lat>` positions of a prompt."""
