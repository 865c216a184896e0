"""Frozen encoders: pictures -> embeddings, computed once and kept."""
