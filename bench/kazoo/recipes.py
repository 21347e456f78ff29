# SPDX-License-Identifier: Apache-2.0

"""Drives kazoo's recipes: WHAT HOSTS N, one user alone."""

import sys

from kazoo.client import KazooClient
from kazoo.recipe.queue import LockingQueue

what, hosts, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = KazooClient(hosts=hosts, timeout=20)
client.start()
if what == "lock":
    lock = client.Lock("/kazoo-lock")
    for _ in range(n):
        with lock:
            pass
elif what == "semaphore":
    semaphore = client.Semaphore("/kazoo-semaphore", max_leases=4)
    for _ in range(n):
        with semaphore:
            pass
elif what == "items":
    queue = LockingQueue(client, "/kazoo-queue")
    for _ in range(n):
        queue.put(b"item")
        queue.get()
        queue.consume()
elif what != "connect":
    sys.exit("what is " + what)
client.stop()
print("done")
