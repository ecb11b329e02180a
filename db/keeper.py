"""Stops the embedded PostgreSQL after the last process that used it has ended, however it ended.

Run by `db.embedded` as a process of its own, by its path and with the standard library only: it is small, and outlives
whoever started it. Arguments: the path of `pg_ctl`, the data folder, the descriptor of the locked `postgres.keeper`.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path


def main(pg_ctl: str, folder: Path, lock: int) -> int:
    """Wait until nobody holds `postgres.users`, then stop the server; returns the exit code of `pg_ctl`."""
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    users = os.open(folder / "postgres.users", os.O_RDWR)
    fcntl.flock(users, fcntl.LOCK_EX)
    pgdata = folder / "postgres"
    owner, root = pgdata.stat(), os.geteuid() == 0
    # pg_ctl refuses to run as root; the server runs as whoever owns its files.
    return subprocess.run(  # noqa: S603 - the path comes from db.embedded
        [pg_ctl, "-D", str(pgdata), "-w", "-m", "fast", "stop"],
        check=False,
        cwd="/",
        stdin=subprocess.DEVNULL,
        user=owner.st_uid if root else None,
        group=owner.st_gid if root else None,
        extra_groups=[] if root else None,
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
