"""A checkpoint's files, its description and its weights."""
