"""The programs of the matrix: each works below `job.place` on a mount and checks what it did."""

from tests.mounts.programs import copying, naming, tools, writing
from tests.mounts.programs.job import PROGRAMS, Job, Program

__all__ = ["OPTIONS", "PROGRAMS", "SETS_DIRECTORY_TIMES", "Job", "Program", "tools", "writing"]

# Those that set the times of all directories at their end.
SETS_DIRECTORY_TIMES = {copying.copy_tree, copying.rsync_twice, copying.tar_in_and_out}

# moto answers 350 HEADs a second: with the default of 3 s what it said first would be asked again.
OPTIONS = {naming.many_entries: ("--metadata-ttl", "60")}
