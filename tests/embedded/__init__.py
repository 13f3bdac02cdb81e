"""Tests of the model that is in the repository: what only trained weights can show."""
