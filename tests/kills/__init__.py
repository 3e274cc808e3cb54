"""Kill commands at random places, and check that nothing is lost: `python -m tests.kills`."""
