"""LoRA, ControlNet and initial pictures, on a small random pipeline."""
