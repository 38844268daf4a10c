"""What a JSON Schema means where it does not say so: the type of its values, and the keys of its objects."""
