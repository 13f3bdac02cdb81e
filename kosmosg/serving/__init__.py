"""Requests in, files out: what the server does between Cog and the pipeline."""
