"""s3mount: an S3 bucket as a folder."""

__version__ = "0.1.0"
