"""The only room with weights and device tensors."""
