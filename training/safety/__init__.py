"""Training of the small safety classifier. Reads no images."""
