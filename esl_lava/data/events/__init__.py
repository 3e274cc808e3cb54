"""Recordings of event cameras: their file formats, their data sets and their frames."""
