"""Weights: from the authors' checkpoint, from public parts, from nothing; opened and fetched."""
