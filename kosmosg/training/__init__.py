"""The three training stages (paper, section 2) on one loop."""
