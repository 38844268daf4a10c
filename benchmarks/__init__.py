"""Side-by-side measurements. Each prints a table and a ratio."""
