"""The commands of ``python -m miniature``."""
