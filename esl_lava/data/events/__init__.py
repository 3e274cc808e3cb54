"""Recordings of event cameras: files, what they hold, and frames of them."""
