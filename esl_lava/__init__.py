"""Sparse spiking networks: trained from scratch, exported exactly, priced honestly."""
