"""The only package that knows pyfuse3."""
