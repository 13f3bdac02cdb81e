"""The tables of the paper in the drawn world."""
