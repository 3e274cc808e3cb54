"""Sparse spiking networks: trained from scratch, exported exactly, priced with cited constants."""

from esl_lava.lava_repairs import install

install()
del install
