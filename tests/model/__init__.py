"""The file system without a mount: against a reference model, and what it asks of the bucket."""
