"""What the machine allows: the same HTTP client and one UPDATE per send, without queue, ledger or limiter.

`python -m bench.bare_loop PROCESSES THREADS SENDS` prints one JSON object with the sends per second.
"""

import json
import multiprocessing
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from db import pool
from providers.whatsapp import TextMessage, whatsapp


def main() -> None:
    """Send and print."""
    processes, threads, sends = map(int, sys.argv[1:4])
    with pool.transaction() as connection:
        connection.execute("create table bare_loop (id int primary key, message_id text)")
        connection.execute("insert into bare_loop (id) select generate_series(0, %s)", [sends])
    pool.close()
    ready = multiprocessing.Barrier(processes + 1)
    workers = [
        multiprocessing.Process(target=_send_share, args=(ready, threads, range(first, sends, processes)))
        for first in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.monotonic()
    for worker in workers:
        worker.join()
    sys.stdout.write(json.dumps({"per_s": sends / (time.monotonic() - began)}))


def _send_share(ready: "multiprocessing.synchronize.Barrier", threads: int, share: range) -> None:
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(_send, share[: threads * 2]))  # opens the connections
        ready.wait()
        list(executor.map(_send, share))
    pool.close()


def _send(number: int) -> None:
    message_id = whatsapp().send(
        number_id="bare", recipient=f"+1202{number:07}", message=TextMessage("Hello"), callback_data=str(number)
    )
    with pool.connection() as connection:
        connection.execute("update bare_loop set message_id = %s where id = %s", [message_id, number])


if __name__ == "__main__":
    main()
