# SPDX-License-Identifier: Apache-2.0
"""Does with kazoo's LockingQueue what it is told on its standard input, a line for each request, and answers with one."""

import sys

from kazoo.client import KazooClient


def serve(queues, client, verb, path, words):
    queue = queues.setdefault(path, None) or client.LockingQueue(path)
    queues[path] = queue
    if verb == "put":
        queue.put_all([word.encode() for word in words[1:]], int(words[0]))
        return ""
    if verb == "get":
        item = queue.get(timeout=30)
        return "" if item is None else item.decode()
    if verb == "consume":
        return queue.consume()
    if verb == "release":
        return queue.release()
    if verb == "len":
        return len(queue)
    raise ValueError(verb)


def main():
    client = KazooClient(hosts=sys.argv[1])
    client.start()
    queues = {}
    for line in sys.stdin:
        verb, path, *words = line.split()
        try:
            print("done", serve(queues, client, verb, path, words), flush=True)
        except Exception as e:  # whatever it is, the test is told
            print("failed", repr(e), flush=True)
    client.stop()


main()
