"""From prompts to ids: sampling, search, quick steps, and how much is read at a time."""
