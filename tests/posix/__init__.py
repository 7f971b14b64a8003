"""A real mount against a local directory: the same calls, the same answers."""
