"""The recipe that made the embedded checkpoint: data, tokenizer, training and evaluation."""
