"""Pure: keys, metadata, extents, configuration, errors. No trio, no I/O."""
