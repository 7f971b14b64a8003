"""`python -m s3mount` and the script `s3mount`."""

import atexit
import gc
import sys

# New objects between two looks for garbage. Most of what a command makes are its modules, which
# stay: at Python's own number (700) the looks took a tenth of a short command's time.
OBJECTS_OF_LOADING = 50_000


def run() -> None:
    """Ctrl-C while the modules are read prints no traceback either."""
    gc.set_threshold(OBJECTS_OF_LOADING)
    atexit.register(gc.freeze)  # else all is looked through twice more as the process ends
    try:
        from s3mount.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
