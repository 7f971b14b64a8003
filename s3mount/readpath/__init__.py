"""The way in: read-ahead, block cache, reader."""
