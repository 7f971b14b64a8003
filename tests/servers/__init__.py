"""S3 services for tests, on free ports of 127.0.0.1: moto, also a strict one, and Ceph."""

from tests.servers.ceph import CephServer
from tests.servers.endpoint import Bucket, Server
from tests.servers.moto import MotoServer, StrictServer

__all__ = ["Bucket", "CephServer", "MotoServer", "Server", "StrictServer"]
