"""Tests of what the model is fed with."""
