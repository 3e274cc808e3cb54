"""Damaged and forged files for every reader: `python -m tests.fuzz --help`.

`formats` lists the formats. A module for each one makes sound files and pure, seeded mutants of
them, reads a file as the product does, and says what the file means by other, plain code. `runner`
tries each mutant in a process whose memory and time are limited.
"""
