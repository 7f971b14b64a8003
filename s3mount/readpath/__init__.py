"""The way in: read-ahead, block caches, readers.

READ request -> ObjectReader (AccessPattern decides) -> BlockCache | Prefetcher -> disk or store.
"""

from s3mount.readpath.read_path import ReadPath
from s3mount.readpath.reader import ObjectReader
from s3mount.readpath.remote import RemoteObject
from s3mount.readpath.siblings import SiblingReadahead

__all__ = ["ObjectReader", "ReadPath", "RemoteObject", "SiblingReadahead"]
