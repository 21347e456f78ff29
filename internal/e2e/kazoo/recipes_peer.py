# SPDX-License-Identifier: Apache-2.0
"""Does with kazoo's recipes what it is told on its standard input.

A line is WHO WHAT ARGUMENTS. Each WHO is a thread and has at most one thing that it gives back. The answer is a line; if WHO
begins with ~ the answer comes at once, and "got WHO=ANSWER" when it is done.
"""

import datetime
import queue
import sys
import threading

import kazoo
from kazoo.client import KazooClient
from kazoo.exceptions import LockTimeout


def say(line):
    sys.stdout.write(line + "\n")  # one write, so that lines of several threads do not mix
    sys.stdout.flush()


class Peer:
    def __init__(self, hosts):
        self.client = KazooClient(hosts=hosts)
        self.client.start()
        self.threads, self.held = {}, {}

    def contend(self, path, room, times):
        lock = self.client.WriteLock(path)
        for _ in range(times):
            with lock:
                name = self.client.create(room + "/wkazoo")
                for _ in range(3):  # others who may come in do so meanwhile
                    self.client.set(name, b"")
                inside = self.client.get_children(room)
                self.client.delete(name)
                if len(inside) > 1:
                    raise RuntimeError("%s are in at once" % inside)

    def serve(self, who, what, *args):
        c, path = self.client, args[0] if args else ""
        if what == "version":
            return kazoo.__version__
        if what == "ping":
            return ""
        if what == "release":
            return self.held.pop(who)()
        if what in ("read", "write"):
            lock = (c.ReadLock if what == "read" else c.WriteLock)(path)
            lock.acquire()
            self.held[who] = lock.release
        elif what == "try-write":
            try:
                return c.WriteLock(path).acquire(timeout=0.1)
            except LockTimeout:
                return False
        elif what == "contend":
            self.contend(path, args[1], int(args[2]))
        elif what == "lead":  # says that it leads, and leads until it is released
            enough, out = threading.Event(), threading.Event()
            election = c.Election(path, args[1])

            def lead():
                say("got %s=leads" % who)
                enough.wait()

            def run():
                election.run(lead)
                out.set()

            def release():
                enough.set()
                out.wait()

            threading.Thread(target=run, daemon=True).start()
            self.held[who] = release
        elif what == "candidates":
            return ",".join(c.Election(path).contenders())
        elif what == "count":  # value, or what is added; in which encoding
            counter = c.Counter(path, support_curator=args[1] == "curator")
            for n in args[2:]:
                counter += int(n)
            return counter.value
        elif what == "count-often":
            counter = c.Counter(path, support_curator=args[1] == "curator")  # one is not for several threads
            for _ in range(int(args[2])):
                counter += 1
        elif what == "set":
            c.Barrier(path).create()
        elif what == "lift":
            return c.Barrier(path).remove()
        elif what == "wait":
            return c.Barrier(path).wait()
        elif what == "enter":
            barrier = c.DoubleBarrier(path, int(args[1]), who)
            barrier.enter()
            self.held[who] = barrier.leave
            return barrier.participating
        elif what == "lease":  # holder, seconds
            return bool(c.NonBlockingLease(path, datetime.timedelta(seconds=float(args[2])), args[1]))
        elif what == "leases":  # how many at once, holder, seconds
            return bool(c.MultiNonBlockingLease(int(args[1]), path, datetime.timedelta(seconds=float(args[3])), args[2]))
        else:
            raise ValueError(what)
        return ""

    def work(self, tasks):
        while True:
            later, who, words = tasks.get()
            prefix = "got %s=" % who if later else ""
            try:
                answer = self.serve(who, *words)
                say(prefix + ("" if later else "done ") + ("" if answer is None else str(answer)))
            except Exception as e:  # whatever it is, the test is told
                say(prefix + "failed " + repr(e))

    def run(self):
        for line in sys.stdin:
            later = line.startswith("~")
            who, *words = line.lstrip("~").split()
            if later:
                say("done ")
            if who not in self.threads:
                self.threads[who] = queue.Queue()
                threading.Thread(target=self.work, args=(self.threads[who],), daemon=True).start()
            self.threads[who].put((later, who, words))
        self.client.stop()


Peer(sys.argv[1]).run()
