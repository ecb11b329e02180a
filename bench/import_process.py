"""One import in a process of its own, so that its memory is its own: `python -m bench.import_process FILE REPEATS`.

Prints one JSON object: rows, seconds and CPU seconds of each repetition (this process without the server's), and the
peak of the process's memory in MB. Each repetition imports into an organisation of its own.
"""

import json
import resource
import sys
import time
from pathlib import Path

from core.clock import uuid7
from db import imports, pool
from db.import_run import run


def measure(path: Path) -> dict[str, float]:
    """Store the file, which does not count, and import it."""
    organization_id = uuid7()
    with pool.transaction() as connection:
        connection.execute("insert into organizations (id, name) values (%s, 'bench')", [organization_id])
    import_id = imports.accept(organization_id, path, path.name)
    begin, cpu_begin = time.monotonic(), time.process_time()
    summary = run(import_id)
    return {
        "rows": int(str(summary["rows"])),
        "seconds": time.monotonic() - begin,
        "cpu_seconds": time.process_time() - cpu_begin,
    }


def main() -> None:
    """Measure as often as asked."""
    path, repeats = Path(sys.argv[1]), int(sys.argv[2])
    runs = [measure(path) for _ in range(repeats)]
    pool.close()
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(json.dumps({"runs": runs, "peak_mb": peak_kb / 1024}))


if __name__ == "__main__":
    main()
