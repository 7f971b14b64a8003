"""`python -m s3mount` and the script `s3mount`."""

import sys


def run() -> None:
    """Ctrl-C while the modules are read prints no traceback either."""
    try:
        from s3mount.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
