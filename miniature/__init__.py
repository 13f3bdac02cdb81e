"""A small KOSMOS-G in a drawn world: everything is made here, from the data to the tables."""
