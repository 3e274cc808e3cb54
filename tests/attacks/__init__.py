"""Files that were made to harm whoever reads them. Each function writes one; see `test_attacks`."""
