"""What the stages are trained on: samples, their order, their packing."""
