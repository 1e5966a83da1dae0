"""The text stage: prompts in, conditioning tensors out."""
