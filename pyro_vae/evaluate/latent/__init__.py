"""What the latent variables carry: information, collapse, labels."""
