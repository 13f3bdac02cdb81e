"""The benchmark works; how fast anything is, no test says."""
