"""Tests through the running Cog server."""
