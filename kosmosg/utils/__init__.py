"""Files, contact sheets, memory and processes: what every room may need."""
