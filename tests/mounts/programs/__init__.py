"""The programs of the matrix: each works below `job.place` on a mount and checks what it did."""

from tests.mounts.programs import copying, naming, tools, writing
from tests.mounts.programs.job import PROGRAMS, Job, Program

__all__ = [
    "LONG",
    "OPTIONS",
    "PROGRAMS",
    "SETS_DIRECTORY_TIMES",
    "Job",
    "Program",
    "tools",
    "writing",
]

# Those that set the times of all directories at their end.
SETS_DIRECTORY_TIMES = {copying.copy_tree, copying.rsync_twice, copying.tar_in_and_out}

# Those that take so long that what was seen first would be asked again.
_PATIENT = ("--metadata-ttl", "600")
OPTIONS = {naming.many_entries: _PATIENT, writing.log_loop: _PATIENT}

# Those that take longest.
LONG = {naming.many_entries, writing.log_loop, writing.header_rewritten}
