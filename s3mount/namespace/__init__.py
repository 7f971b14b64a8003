"""The tree of names: inodes, directories, attributes by version."""
