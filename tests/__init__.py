"""Tests; servers/ starts the S3 services that they run against."""
