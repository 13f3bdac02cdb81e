"""What KOSMOS-G takes from others: CLIP, a VAE, a U-Net, adapters; and the probe."""
