"""Bytes and names; knows neither FUSE nor boto3."""
