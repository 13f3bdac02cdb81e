"""What is trained in each stage, and on which loss."""
