"""Measuring what a trained model draws (paper, section 4)."""
