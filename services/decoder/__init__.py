"""The decoder stage: latents in, image files out."""
