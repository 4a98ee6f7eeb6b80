"""What the callback reads off a `transformers.Trainer`: its data, tokens, losses and learning rates."""
