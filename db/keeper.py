"""Stops the embedded PostgreSQL after the last process that used it has ended, however it ended.

Run by `db.embedded` as a process of its own, by its path and without the project's packages: it is small, and outlives
whoever started it. Arguments: the path of `pg_ctl`, the data folder, the descriptor of the held `postgres.keeper`.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path


def main(pg_ctl: str, folder: Path, lock: int) -> int:
    """Wait until nobody holds `postgres.users`, then stop the server; returns the exit code of `pg_ctl`."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    users = os.open(folder / "postgres.users", os.O_RDWR)
    fcntl.flock(users, fcntl.LOCK_EX)
    pgdata = folder / "postgres"
    # The server runs as whoever owns its files; pg_ctl refuses to run as root.
    owner = pgdata.stat()
    user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [pg_ctl, "-D", str(pgdata), "-w", "-m", "fast", "stop"]
    return subprocess.run(command, check=False, cwd="/", stdin=subprocess.DEVNULL, **user).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
