"""Tests of what each stage trains, and on which loss."""
