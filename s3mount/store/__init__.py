"""The S3 service: the only package that knows boto3, botocore and urllib3."""
