"""The Open Inference Protocol: a servicer over model descriptions, and a client."""
