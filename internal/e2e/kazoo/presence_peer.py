# SPDX-License-Identifier: Apache-2.0
"""Does with kazoo's parties and SetPartitioner what it is told on its standard input, a line for each request."""

import sys
import threading

from kazoo.client import KazooClient


class Worker:
    """A SetPartitioner that goes through its states until it is told to finish."""

    def __init__(self, client, path, identifier, items):
        self.finished = threading.Event()
        self.changed = client.handler.event_object()
        self.partitioner = client.SetPartitioner(
            path, set=items, identifier=identifier, time_boundary=1, state_change_event=self.changed)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        p = self.partitioner
        while not self.finished.is_set() and not p.failed:
            self.changed.clear()
            if p.release:
                p.release_set()
            elif p.allocating:
                p.wait_for_acquire(1)
            else:
                self.changed.wait(0.2)

    def owned(self):
        return sorted(self.partitioner) if self.partitioner.acquired else []

    def finish(self):
        self.finished.set()
        self.thread.join()
        self.partitioner.finish()


def serve(things, client, verb, path, words):
    key = (path, words[0] if words else "")
    if verb in ("party", "shallow"):
        things[key] = (client.Party if verb == "party" else client.ShallowParty)(path, words[0])
        things[key].join()
        return ""
    if verb == "list":
        return ",".join(sorted(things[key]))
    if verb == "leave":
        return things[key].leave()
    if verb == "work":
        things[key] = Worker(client, path, words[0], words[1:])
        return ""
    if verb == "owned":
        return ",".join(things[key].owned())
    if verb == "finish":
        return things[key].finish() or ""
    raise ValueError(verb)


def main():
    client = KazooClient(hosts=sys.argv[1])
    client.start()
    things = {}
    for line in sys.stdin:
        verb, path, *words = line.split()
        try:
            print("done", serve(things, client, verb, path, words), flush=True)
        except Exception as e:  # whatever it is, the test is told
            print("failed", repr(e), flush=True)
    client.stop()


main()
