"""Recordings of any length, listened to piece by piece."""
