"""Bridges to other tools; each needs its library only when the bridge itself is imported."""
