"""Tests of what measures the miniature."""
