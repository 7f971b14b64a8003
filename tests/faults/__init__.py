"""Every fault of the table in ARCHITECTURE.md, and campaigns of all of them by chance."""
