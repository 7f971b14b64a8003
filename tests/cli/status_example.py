"""A mount's answer to `status`, made up, with something of everything."""

from typing import Any

from s3mount.control.answers import FORMAT

MIB = 1024 * 1024


def intent(kind: str, key: str, **fields: Any) -> dict[str, Any]:
    plain = {
        "kind": kind,
        "key": key,
        "source": None,
        "what": f"{kind} {key!r}",
        "state": "waiting",
        "age": 1.0,
        "bytes": 0,
        "attempts": 0,
        "error": None,
        "again_in": None,
    }
    return plain | fields


def transfer(path: str, size: int, sent: int, **fields: Any) -> dict[str, Any]:
    plain = {
        "key": f"data/{path}",
        "path": path,
        "size": size,
        "sent": sent,
        "per_second": 2.0 * MIB,
        "eta": 30.0,
        "moving": True,
        "open": False,
        "attempts": 0,
        "error": None,
    }
    return plain | fields


def example(**fields: Any) -> dict[str, Any]:
    pending = {
        "phase": "serving",
        "intents": 3,
        "bytes": 60 * MIB,
        "files": 2,
        "unfinished": 1,
        "journalled": True,
        "errors": ["put 'data/secret': PutObject: AccessDenied"],
        "sent": 140 * MIB,
        "per_second": 4.0 * MIB,
        "eta": 15.0,
    }
    lane = {"busy": 0, "waiting": 0, "limit": 48, "most": 48}
    return {
        "format": FORMAT,
        "version": "1.0",
        "pid": 4711,
        "bucket": "photos",
        "prefix": "data/",
        "endpoint": "https://s3.example.org",
        "mountpoint": "/home/me/photos",
        "read_only": False,
        "durability": "close",
        "cache_dir": "/var/cache/s3mount/b-0123/mounts/4567",
        "uptime": 7500.0,
        "pending": pending,
        "queue": {"put": 2, "mkdir": 0, "copy": 0, "attributes": 0, "delete": 1, "rename-tree": 0},
        "intents": [
            intent("put", "data/film.mkv", state="running", bytes=100 * MIB),
            intent(
                "put",
                "data/secret",
                attempts=3,
                error="PutObject: AccessDenied",
                again_in=20.0,
            ),
            intent("delete", "data/old"),
        ],
        "transfers": [
            transfer("waits.bin", 200 * MIB, 0, moving=False, per_second=None, eta=None),
            transfer("film.mkv", 100 * MIB, 40 * MIB),
        ],
        "done": {"put": 10, "mkdir": 1, "copy": 0, "attributes": 0, "delete": 0, "rename-tree": 0},
        "failures": ["copy 'a' -> 'b': NotFound"],
        "conflicts": [{"key": "data/c", "kept": ["data/c.conflict-me-1"], "at": 0.0}],
        "open_files": 2,
        "requests": {"PutObject": 1000, "GetObject": 2000, "UploadPart": 5},
        "totals": {
            "files": 10,
            "bytes": 140 * MIB,
            "requests": 3005,
            "retries": 2,
            "slow_downs": 1,
            "bytes_out": 141 * MIB,
            "bytes_in": 1024 * MIB,
        },
        "workers": {
            "metadata": lane,
            "transfer": {"busy": 8, "waiting": 3, "limit": 8, "most": 16},
        },
        "cache": {"hits": 93, "misses": 7, "cached_bytes": MIB, "memory_limit": 128 * MIB},
        "journal": {"durable": True, "problems": [], "others": []},
        "spool": {"used": 60 * MIB, "memory": 0, "limit": 4096 * MIB, "chunks": 8, "waiting": 2},
        "namespace": {
            "unreachable": 25,
            "unreachable_samples": {"data//x": "an empty name"},
            "shadowed": 0,
            "shadowed_samples": {},
        },
        "recovery": {
            "recovered": {"intents": 0, "bytes": 0},
            "recoverable": ["draft.odt: 1 of 2 bytes"],
            "uploads": ["an upload of 'x'"],
        },
    } | fields
