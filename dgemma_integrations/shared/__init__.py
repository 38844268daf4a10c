"""Code that both adapters use."""
