"""`s3mount feed`: a folder, a file or a stream becomes objects in the mount's layout."""
