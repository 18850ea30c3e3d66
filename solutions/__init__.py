"""The reference answers, one module a chapter."""
