"""Measuring what a trained model generates (paper, section 4)."""
