"""Files, memory and processes: what every room may need."""
