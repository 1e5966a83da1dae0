"""The model in plain eager float32 PyTorch, one operation after another in the order of docs/spec.md: what `model` is
compared with. It reads the weights of `model`'s modules and calls none of their methods."""
