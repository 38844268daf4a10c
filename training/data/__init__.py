"""Seeded generators of templated tasks over invented names."""
