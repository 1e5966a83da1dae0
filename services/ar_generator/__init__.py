"""The generator stage: conditioning in, a stream of scales and the hybrid latent out."""
