"""The simulation against a real cluster of real processes whose engines sleep the profile's seconds."""
