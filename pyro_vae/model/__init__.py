"""The model: data as records, latent variables, and the VAE over them."""
