"""The exit statuses of all commands; `s3mount --help`, the man page and the README list them."""

DONE = 0
FAILED = 1  # the message says why and what to do
USAGE = 2  # click's: the words of the command line make no sense
UNFINISHED = 3  # what is left is kept (journal), and the same command or the next mount goes on
INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT, as shells have it
