"""What runs start from, and the models that they become, at their end or at any checkpoint."""
