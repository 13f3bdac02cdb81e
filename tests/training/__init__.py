"""Tests of the training stages."""
