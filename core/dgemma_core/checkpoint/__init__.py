"""A checkpoint's files, what it says of itself, and its weights."""
