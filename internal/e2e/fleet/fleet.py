# SPDX-License-Identifier: Apache-2.0
"""kazoo's part of a mixed fleet: two clients take a lock in turns with programs of other kinds.

Arguments: connect string, path of the lock, directory of the critical section, turns of each client, and further name
patterns that are contenders.
"""

import os
import sys
import threading

import kazoo.version
from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

hosts, path, directory, turns = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
patterns = sys.argv[5:]
failures = []


def critical(sequence, who):
    """Fails if anybody else is inside."""
    held = os.path.join(directory, "held")
    os.close(os.open(held, os.O_CREAT | os.O_EXCL))
    counter = os.path.join(directory, "counter")
    with open(counter) as f:
        n = int(f.read())
    with open(os.path.join(directory, "log"), "a") as f:
        f.write("%d %s\n" % (sequence, who))
    with open(counter + "." + who, "w") as f:
        f.write(str(n + 1))
    os.rename(counter + "." + who, counter)
    os.remove(held)


def contend(who):
    try:
        patient = dict(max_tries=-1, delay=0.05)
        client = KazooClient(hosts=hosts, timeout=10, connection_retry=KazooRetry(**patient), command_retry=KazooRetry(**patient))
        client.start(30)
        for _ in range(turns):
            lock = client.Lock(path, who, extra_lock_patterns=patterns)
            if not lock.acquire(timeout=60):
                raise AssertionError("not granted")
            critical(int(lock.node[-10:]), who)
            lock.release()
        client.stop()
        client.close()
    except BaseException as e:
        failures.append(repr(e))


threads = [threading.Thread(target=contend, args=("kazoo%d" % i,)) for i in range(2)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("client kazoo", kazoo.version.__version__, flush=True)
print("FAIL kazoo " + "; ".join(failures) if failures else "ok kazoo", flush=True)
