"""Pictures; the only package that imports matplotlib."""
