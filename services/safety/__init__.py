"""The safety stage: prompts in, one score per policy out."""
