"""How a checkpoint is made: data, tokenizer, transformer, text, safety, evaluation. Knows nothing of gRPC."""
