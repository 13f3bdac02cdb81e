"""What the Makefile calls; none of it goes into the container."""
