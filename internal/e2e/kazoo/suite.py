# SPDX-License-Identifier: Apache-2.0
"""kazoo's client and recipes; see ../doc.go for how a suite talks to its test."""

import datetime
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
import uuid

import kazoo.exceptions as errors
import kazoo.recipe.cache as cache
import kazoo.recipe.partitioner as partitioner
import kazoo.version
from kazoo.client import KazooClient, KazooState
from kazoo.recipe.watchers import ChildrenWatch, DataWatch
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl

HOSTS = sys.argv[1]
TLS = os.environ.get("ZK_E2E_TLS")  # a directory with certificates: all connections use them
BOUND = 30  # seconds that a wait may take before the case has failed
CASES = []

logging.basicConfig(stream=sys.stderr, level=logging.ERROR)


def say(*words):
    print(" ".join(str(w).replace("\n", " ") for w in words), flush=True)


def ask(request):
    say("ask", request)
    answer = sys.stdin.readline().strip()
    if answer.startswith("error"):
        raise AssertionError(answer)
    return answer


def case(fn):
    CASES.append(fn)
    return fn


def tls_case(fn):
    return case(fn) if TLS else fn


def connect(**options):
    options.setdefault("timeout", 10)
    if TLS:
        options.update(use_ssl=True, ca=TLS + "/ca.pem", certfile=TLS + "/cert.pem", keyfile=TLS + "/key.pem")
    client = KazooClient(hosts=options.pop("hosts", HOSTS), randomize_hosts=True, **options)
    client.start(timeout=BOUND)
    return client


class Clients:
    """Opens clients and closes them at the end of a case."""

    def __init__(self):
        self.all = []

    def __call__(self, **options):
        client = connect(**options)
        self.all.append(client)
        return client

    def close(self):
        for client in self.all:
            try:
                client.stop()
                client.close()
            except Exception:
                traceback.print_exc()


def until(condition, what):
    """Waits for what no callback tells."""
    end = time.monotonic() + BOUND
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain for " + what)
        time.sleep(0.01)


def wait(event, what):
    if not event.wait(BOUND):
        raise AssertionError("waited in vain for " + what)


def join(*threads):
    for t in threads:
        t.join(2 * BOUND)
        if t.is_alive():
            raise AssertionError("a thread did not end")


def run(fn, *args):
    """Runs fn in a thread; result() joins it and gives what it returned or raised."""

    class Running(threading.Thread):
        def __init__(self):
            super().__init__(daemon=True)
            self.value = self.error = None

        def run(self):
            try:
                self.value = fn(*args)
            except BaseException as e:
                self.error = e

        def result(self):
            join(self)
            if self.error is not None:
                raise self.error
            return self.value

    t = Running()
    t.start()
    return t


def equal(got, want):
    if got != want:
        raise AssertionError("got %r, want %r" % (got, want))


def raises(kind, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except kind as e:
        return e
    raise AssertionError("no " + kind.__name__)


# --- calls


@case
def create_get_set_delete(clients, base):
    c = clients()
    equal(c.create(base, b"one"), base)
    data, stat = c.get(base)
    equal(data, b"one")
    equal((stat.version, stat.cversion, stat.aversion, stat.numChildren, stat.dataLength), (0, 0, 0, 0, 3))
    equal(stat.czxid, stat.mzxid)
    equal(c.set(base, b"two", version=0).version, 1)
    raises(errors.BadVersionError, c.set, base, b"x", version=0)
    raises(errors.NodeExistsError, c.create, base)
    raises(errors.NoNodeError, c.create, base + "/a/b")
    raises(errors.NoNodeError, c.get, base + "/none")
    equal(c.exists(base + "/none"), None)
    c.create(base + "/kid", makepath=True)
    raises(errors.NotEmptyError, c.delete, base)
    raises(errors.BadVersionError, c.delete, base + "/kid", version=7)
    c.delete(base + "/kid", version=0)
    c.delete(base)
    raises(errors.NoNodeError, c.delete, base)


@case
def create_modes(clients, base):
    c = clients()
    c.ensure_path(base)
    equal([c.create(base + "/s-", sequence=True) for _ in range(3)], [base + "/s-%010d" % i for i in range(3)])
    e = c.create(base + "/e-", ephemeral=True, sequence=True)
    equal(e, base + "/e-0000000003")
    equal(c.exists(e).ephemeralOwner, c.client_id[0])
    raises(errors.NoChildrenForEphemeralsError, c.create, e + "/x")
    path, stat = c.create(base + "/with-stat", b"abc", include_data=True)
    equal((path, stat.dataLength, stat.version), (base + "/with-stat", 3, 0))
    c.create(base + "/a/b/c/d", b"deep", makepath=True)
    equal(c.get(base + "/a/b/c/d")[0], b"deep")
    c.delete(base + "/a", recursive=True)
    equal(c.exists(base + "/a"), None)


@case
def children(clients, base):
    c = clients()
    c.ensure_path(base)
    for i in range(100):
        c.create_async("%s/n%03d" % (base, i)).get(BOUND)
    equal(sorted(c.get_children(base)), ["n%03d" % i for i in range(100)])
    kids, stat = c.get_children(base, include_data=True)
    equal((len(kids), stat.numChildren, stat.cversion), (100, 100, 100))
    equal(c.get_children(base + "/n000"), [])
    raises(errors.NoNodeError, c.get_children, base + "/none")


@case
def data_of_every_size(clients, base):
    c = clients()
    c.ensure_path(base)
    for size in (0, 1, 1023, 65536, 1000 * 1000):
        data = bytes(i % 251 for i in range(size))
        c.set(base, data)
        equal(c.get(base)[0], data)
    c.set(base, b"after")
    equal(c.get(base)[0], b"after")


@case
def unicode_paths(clients, base):
    c = clients()
    c.create(base + "/\u00fc\u4e2d\u6587", b"x", makepath=True)
    equal(c.get_children(base), ["\u00fc\u4e2d\u6587"])


@case
def pipelining_keeps_order(clients, base):
    c = clients()
    c.ensure_path(base)
    pending = []
    for i in range(300):
        pending.append((c.set_async(base, b"%d" % i), c.get_async(base), i))
    for write, read, i in pending:
        equal(write.get(BOUND).version, i + 1)
        data, stat = read.get(BOUND)
        equal((data, stat.version), (b"%d" % i, i + 1))


@case
def sync_sees_others_writes(clients, base):
    a, b = clients(), clients()
    a.ensure_path(base)
    for i in range(20):
        a.set(base, b"%d" % i)
        equal(b.sync(base), base)
        equal(b.get(base)[0], b"%d" % i)


@case
def transactions(clients, base):
    c = clients()
    c.ensure_path(base)
    t = c.transaction()
    t.create(base + "/a", b"1")
    t.create(base + "/s-", sequence=True)
    t.set_data(base + "/a", b"2", version=0)
    t.check(base + "/a", 1)
    t.create(base + "/gone")
    t.delete(base + "/gone")
    results = t.commit()
    equal(results[0], base + "/a")
    equal(results[1], base + "/s-0000000001")
    equal(results[2].version, 1)
    equal(results[3:], [True, base + "/gone", True])
    t = c.transaction()
    t.create(base + "/b")
    t.check(base + "/a", 99)
    t.delete(base + "/a")
    r = t.commit()
    equal([type(x) for x in r], [errors.RolledBackError, errors.BadVersionError, errors.RuntimeInconsistency])
    equal(c.exists(base + "/b"), None)
    equal(c.get(base + "/a")[0], b"2")


@case
def acls_and_auth(clients, base):
    c, other, friend = clients(), clients(), clients(auth_data=[("digest", "joe:secret")])
    c.add_auth("digest", "joe:secret")
    acl = make_digest_acl("joe", "secret", all=True)
    c.create(base, b"mine", acl=[acl])
    other.sync(base)
    friend.sync(base)
    raises(errors.NoAuthError, other.get, base)
    raises(errors.NoAuthError, other.set, base, b"x")
    raises(errors.NoAuthError, other.create, base + "/kid")
    equal(friend.get(base)[0], b"mine")
    acls, stat = friend.get_acls(base)
    equal((acls, stat.aversion), ([acl], 0))
    world = make_acl("world", "anyone", read=True)
    equal(c.set_acls(base, [acl, world]).aversion, 1)
    other.sync(base)
    equal(other.get(base)[0], b"mine")
    raises(errors.NoAuthError, other.set, base, b"x")
    raises(errors.BadVersionError, c.set_acls, base, OPEN_ACL_UNSAFE, version=0)
    raises(errors.InvalidACLError, c.set_acls, base, [make_acl("nosuch", "x", all=True)])


@tls_case
def x509_identity(clients, base):
    c = clients()
    c.create(base, acl=[make_acl("auth", "", all=True)])
    (acl,), _ = c.get_acls(base)
    equal((acl.id.scheme, acl.id.id), ("x509", "CN=e2e client"))


@case
def unknown_scheme_is_refused(clients, base):
    c = clients()
    raises(errors.AuthFailedError, c.add_auth, "nosuch", "x")


@case
def chroot(clients, base):
    c = clients()
    c.ensure_path(base)
    inside = clients(hosts=HOSTS + base)
    inside.create("/x", b"in")
    c.sync(base)
    equal(c.get(base + "/x")[0], b"in")
    equal(inside.get_children("/"), ["x"])
    event, paths = threading.Event(), []
    inside.get("/x", watch=lambda e: (paths.append(e.path), event.set()))
    c.set(base + "/x", b"changed")
    wait(event, "the watch")
    equal(paths, ["/x"])


@case
def one_shot_watches(clients, base):
    c, w = clients(), clients()
    c.ensure_path(base)
    w.sync(base)
    seen, ready = [], threading.Condition()

    def watch(kind):
        def on(event):
            with ready:
                seen.append((kind, event.type, event.path))
                ready.notify_all()

        return on

    def expect(*want):
        with ready:
            if not ready.wait_for(lambda: len(seen) >= len(want), BOUND):
                raise AssertionError("only %r" % seen)
            equal(sorted(seen), sorted(want))
            seen.clear()

    equal(w.exists(base + "/a", watch=watch("exists")), None)
    w.get_children(base, watch=watch("children"))
    c.create(base + "/a")
    expect(("exists", "CREATED", base + "/a"), ("children", "CHILD", base))
    w.get(base + "/a", watch=watch("get"))
    c.set(base + "/a", b"x")
    expect(("get", "CHANGED", base + "/a"))
    w.get(base + "/a", watch=watch("get"))
    w.exists(base + "/a", watch=watch("exists"))
    w.get_children(base + "/a", watch=watch("children"))
    c.set(base + "/a", b"y")
    expect(("get", "CHANGED", base + "/a"), ("exists", "CHANGED", base + "/a"))
    c.delete(base + "/a")
    expect(("children", "DELETED", base + "/a"))


@case
def watchers(clients, base):
    c, w = clients(), clients()
    c.ensure_path(base)
    w.sync(base)
    data, kids = [], []
    DataWatch(w, base + "/d", recorder(data))
    ChildrenWatch(w, base, recorder(kids))
    until(lambda: data == [None] and kids == [[]], "the first calls")
    c.create(base + "/d", b"1")
    until(lambda: data[-1] == b"1" and kids[-1] == ["d"], "the create")
    c.set(base + "/d", b"2")
    until(lambda: data[-1] == b"2", "the change")
    c.delete(base + "/d")
    until(lambda: data[-1] is None and kids[-1] == [], "the delete")


@case
def ephemerals_end_with_their_session(clients, base):
    c, w = clients(), clients()
    c.ensure_path(base)
    for i in range(10):
        c.create(base + "/e%d" % i, ephemeral=True)
    gone = threading.Event()
    w.sync(base)
    w.exists(base + "/e0", watch=lambda e: gone.set() if e.type == "DELETED" else None)
    c.stop()
    wait(gone, "the deletion")
    until(lambda: w.get_children(base) == [], "all deletions")


def orphan(path, timeout):
    """Leaves an ephemeral behind whose client was killed; returns its session."""
    program = (
        "import sys, time; from kazoo.client import KazooClient; c = KazooClient(hosts=sys.argv[1], timeout=float(sys.argv[3])); "
        "c.start(); c.create(sys.argv[2], ephemeral=True); print(c.client_id[0], c.client_id[1].hex(), flush=True); time.sleep(600)"
    )
    p = subprocess.Popen([sys.executable, "-c", program, HOSTS, path, str(timeout)], stdout=subprocess.PIPE)
    try:
        number, password = p.stdout.readline().split()
        return int(number), bytes.fromhex(password.decode())
    finally:
        p.kill()
        p.wait()
        p.stdout.close()


@case
def session_moves_with_its_ephemerals(clients, base):
    w = clients()
    w.ensure_path(base)
    number, password = orphan(base + "/e", 10)
    heir = clients(client_id=(number, password))
    equal(heir.client_id, (number, password))
    heir.sync(base)
    equal(heir.exists(base + "/e").ephemeralOwner, number)
    heir.stop()
    w.sync(base)
    equal(w.exists(base + "/e"), None)


@case
def wrong_password_is_refused(clients, base):
    w = clients()
    w.ensure_path(base)
    number, _ = orphan(base + "/e", 10)
    c = clients(client_id=(number, b"0" * 16))
    assert c.client_id[0] != number
    c.sync(base)
    equal(c.exists(base + "/e").ephemeralOwner, number)


@case
def dead_client_expires(clients, base):
    w = clients()
    w.ensure_path(base)
    number, _ = orphan(base + "/e", 2)
    gone = threading.Event()
    w.sync(base)
    equal(w.exists(base + "/e", watch=lambda e: gone.set()).ephemeralOwner, number)
    wait(gone, "the expiry")


@case
def expired_session_is_told(clients, base):
    c, w = clients(connection_retry=KazooRetry(max_tries=-1, delay=0.01)), clients()
    c.ensure_path(base)
    c.create(base + "/e", ephemeral=True)
    lost, states = threading.Event(), []
    c.add_listener(lambda s: (states.append(s), lost.set() if s == KazooState.LOST else None) and None)
    first = c.client_id
    end = time.monotonic() + BOUND
    while not lost.wait(0.1) and time.monotonic() < end:
        # The two take the session from each other until the other one could close it.
        thief = KazooClient(hosts=HOSTS, client_id=first, timeout=10)
        thief.start(BOUND)
        thief.stop()
        thief.close()
    wait(lost, "LOST")
    until(lambda: c.connected and c.client_id and c.client_id[0] != first[0], "a new session")
    w.sync(base)
    equal(w.exists(base + "/e"), None)


@case
def four_letter_words(clients, base):
    c = clients()
    equal(c.command(b"ruok"), "imok")
    assert "Mode: " in c.command(b"srvr")
    assert c.server_version() >= (3, 5), c.server_version()


@case
def config_node(clients, base):
    # kazoo 2.8 cannot decode the answer to a refused reconfig, so that call is left out.
    data, stat = clients().get("/zookeeper/config")
    assert data is not None and stat is not None


# --- recipes


@case
def lock(clients, base):
    holders, most, order = [0], [0], []
    guard = threading.Lock()
    cs = [clients() for _ in range(4)]

    def work(c, i):
        for _ in range(5):
            with c.Lock(base, "c%d" % i):
                with guard:
                    holders[0] += 1
                    most[0] = max(most[0], holders[0])
                c.sync(base)
                with guard:
                    holders[0] -= 1
                    order.append(i)

    ts = [run(work, c, i) for i, c in enumerate(cs)]
    for t in ts:
        t.result()
    equal((most[0], len(order)), (1, 20))
    held = cs[0].Lock(base, "owner")
    assert held.acquire(timeout=BOUND)
    cs[1].sync(base)
    equal(cs[1].Lock(base, "other").acquire(blocking=False), False)
    raises(errors.LockTimeout, cs[1].Lock(base, "other").acquire, timeout=0.2)
    until(lambda: cs[1].Lock(base, "other").contenders() == ["owner"], "one contender")
    held.release()


@case
def lock_of_a_dead_client_is_freed(clients, base):
    a, b = clients(), clients()
    assert a.Lock(base).acquire(timeout=BOUND)
    waiting = run(b.Lock(base).acquire, True, BOUND)
    until(lambda: len(b.get_children(base)) == 2, "the second contender")
    a.stop()
    equal(waiting.result(), True)


@case
def read_write_lock(clients, base):
    a, b, c = clients(), clients(), clients()
    r1, r2, w = a.ReadLock(base), b.ReadLock(base), c.WriteLock(base)
    assert r1.acquire(timeout=BOUND) and r2.acquire(timeout=BOUND)
    equal(w.acquire(blocking=False), False)
    r1.release()
    r2.release()
    assert w.acquire(timeout=BOUND)
    equal(a.ReadLock(base).acquire(blocking=False), False)
    w.release()


@case
def semaphore(clients, base):
    a, b, c = clients(), clients(), clients()
    s = [x.Semaphore(base, max_leases=2) for x in (a, b, c)]
    assert s[0].acquire(timeout=BOUND) and s[1].acquire(timeout=BOUND)
    equal(s[2].acquire(blocking=False), False)
    waiting = run(s[2].acquire, True, BOUND)
    s[0].release()
    equal(waiting.result(), True)


@case
def election(clients, base):
    a, b = clients(), clients()
    led, stop = [], threading.Event()
    first = threading.Event()

    def lead(name):
        led.append(name)
        first.set()
        wait(stop, "the end")

    ea, eb = a.Election(base, "a"), b.Election(base, "b")
    ta = run(ea.run, lead, "a")
    wait(first, "a leader")
    tb = run(eb.run, lead, "b")
    until(lambda: eb.contenders() == ["a", "b"], "two contenders")
    equal(led, ["a"])
    stop.set()
    ta.result(), tb.result()
    equal(led, ["a", "b"])


@case
def queue(clients, base):
    a, b = clients(), clients()
    q = a.Queue(base)
    for i in range(10):
        q.put(b"%d" % i)
    q.put(b"first", priority=10)
    equal(len(q), 11)
    b.sync(base)
    other = b.Queue(base)
    equal([other.get() for _ in range(11)], [b"first"] + [b"%d" % i for i in range(10)])
    equal(other.get(), None)


@case
def locking_queue(clients, base):
    a, b = clients(), clients()
    qa, qb = a.LockingQueue(base), b.LockingQueue(base)
    qa.put_all([b"one", b"two"])
    equal(qb.get(BOUND), b"one")
    equal(qa.get(BOUND), b"two")
    assert qb.consume() and qb.holds_lock() is False
    b.stop()
    a.stop()  # gives "two" back
    c = clients()
    qc = c.LockingQueue(base)
    equal(qc.get(BOUND), b"two")
    assert qc.consume()


@case
def barrier(clients, base):
    a, b = clients(), clients()
    x, y = a.Barrier(base), b.Barrier(base)
    x.create()
    b.sync(base)
    equal(y.wait(0.2), False)
    waiting = run(y.wait, BOUND)
    x.remove()
    equal(waiting.result(), True)


@case
def double_barrier(clients, base):
    cs = [clients() for _ in range(3)]
    inside, guard = [], threading.Lock()
    everybody = threading.Barrier(3)

    def work(c, i):
        b = c.DoubleBarrier(base, 3, "c%d" % i)
        b.enter()
        with guard:
            inside.append(i)
        equal(b.participating, True)
        everybody.wait(BOUND)
        b.leave()
        return len(inside)

    equal([t.result() for t in [run(work, c, i) for i, c in enumerate(cs)]], [3, 3, 3])


@case
def counter(clients, base):
    cs = [clients() for _ in range(4)]
    for t in [run(lambda c=c: [c.Counter(base).__add__(1) for _ in range(25)]) for c in cs]:
        t.result()
    c = cs[0]
    c.sync(base)
    equal(c.Counter(base).value, 100)
    x = c.Counter(base)
    x -= 30
    equal((x.value, x.pre_value, x.post_value), (70, 100, 70))


@case
def party(clients, base):
    a, b = clients(), clients()
    pa, pb = a.Party(base, "a"), b.Party(base, "b")
    pa.join(), pb.join()
    a.sync(base)
    equal(sorted(pa), ["a", "b"])
    pb.leave()
    a.sync(base)
    equal((list(pa), len(pa)), (["a"], 1))
    shallow = b.ShallowParty(base + "-s", "x")
    shallow.join()
    equal(len(shallow), 1)


@case
def set_partitioner(clients, base):
    cs = [clients() for _ in range(2)]

    def work(c):
        p = partitioner.SetPartitioner(c, base, range(6), identifier=uuid.uuid4().hex, time_boundary=0.2)
        end = time.monotonic() + BOUND
        while time.monotonic() < end:
            if p.failed:
                raise AssertionError("failed")
            elif p.release:
                p.release_set()
            elif p.allocating:
                p.wait_for_acquire(1)
            elif p.acquired and len(list(p)) == 3:
                mine.append(sorted(p))
                together.wait(BOUND)
                p.finish()
                return
            else:
                time.sleep(0.01)
        raise AssertionError("no partition")

    mine, together = [], threading.Barrier(2)
    for t in [run(work, c) for c in cs]:
        t.result()
    equal(sorted(x for part in mine for x in part), list(range(6)))


@case
def leases(clients, base):
    a, b = clients(), clients()
    day = datetime.timedelta(days=1)
    assert a.NonBlockingLease(base, day, identifier="a")
    b.sync(base)
    assert not b.NonBlockingLease(base, day, identifier="b")
    assert a.NonBlockingLease(base, day, identifier="a")
    assert a.MultiNonBlockingLease(2, base + "-m", day, identifier="a")
    b.sync(base + "-m")
    assert b.MultiNonBlockingLease(2, base + "-m", day, identifier="b")
    assert not b.MultiNonBlockingLease(2, base + "-m", day, identifier="c")


@case
def tree_cache(clients, base):
    c, w = clients(), clients()
    c.create(base + "/a/b", b"1", makepath=True)
    w.sync(base)
    tree = cache.TreeCache(w, base)
    tree.start()
    until(lambda: (tree.get_data(base + "/a/b") or [None, b""])[1] == b"1", "the first picture")
    c.set(base + "/a/b", b"2")
    c.create(base + "/a/c", b"3")
    until(lambda: tree.get_data(base + "/a/b").data == b"2", "the change")
    until(lambda: tree.get_children(base + "/a") == frozenset(["b", "c"]), "the child")
    c.delete(base + "/a", recursive=True)
    until(lambda: tree.get_data(base + "/a") is None, "the deletion")
    tree.close()


# --- the kill of a leader


def recorder(seen):
    def record(value, stat=None):
        seen.append(value)

    return record


def server(client):
    return "%s:%d" % client._connection._socket.getpeername()[:2]


@case
def leader_kill(clients, base):
    leader = ask("leader")
    at_leader = elsewhere = None
    for _ in range(50):
        c = clients(connection_retry=KazooRetry(max_tries=-1, delay=0.05), command_retry=KazooRetry(max_tries=-1, delay=0.05))
        if server(c) == leader:
            at_leader = at_leader or c
        else:
            elsewhere = elsewhere or c
        if at_leader and elsewhere:
            break
    assert at_leader and elsewhere, "no client at the leader, or none elsewhere"
    pair = (("leader", at_leader), ("elsewhere", elsewhere))
    at_leader.ensure_path(base)
    data, kids = {}, {}
    for name, c in pair:
        c.sync(base)
        c.create(base + "/data-" + name, b"before")
        c.create(base + "/ephemeral-" + name, ephemeral=True)
        # kazoo does not tell a new server of its one-shot watches; these two set theirs again.
        data[name], kids[name] = [], []
        DataWatch(c, base + "/data-" + name, recorder(data[name]))
        ChildrenWatch(c, base + "/data-" + name, recorder(kids[name]))
    ids = {name: c.client_id[0] for name, c in pair}
    ask("kill leader")
    for name, c in pair:
        c.retry(c.sync, base)
        c.retry(c.set, base, name.encode())
        equal(c.client_id[0], ids[name])
        equal(c.exists(base + "/ephemeral-" + name).ephemeralOwner, ids[name])
    assert server(at_leader) != leader
    w = clients()
    w.sync(base)
    for name, c in pair:
        assert w.exists(base + "/ephemeral-" + name) is not None
        w.set(base + "/data-" + name, b"after")
        w.create(base + "/data-" + name + "/kid")
        until(lambda: data[name][-1] == b"after" and kids[name][-1] == ["kid"], "the watches of the client at " + name)
    ask("restart")


@case
def lock_across_leader_kill(clients, base):
    patient = dict(connection_retry=KazooRetry(max_tries=-1, delay=0.05), command_retry=KazooRetry(max_tries=-1, delay=0.05))
    a, b = clients(**patient), clients(**patient)
    held = a.Lock(base)
    assert held.acquire(timeout=BOUND)
    waiting = run(b.Lock(base).acquire, True, BOUND)
    until(lambda: len(a.get_children(base)) == 2, "the second contender")
    ask("kill leader")
    a.retry(a.sync, base)
    equal(b.retry(b.Lock(base).acquire, blocking=False), False)
    assert held.is_acquired
    held.release()
    equal(waiting.result(), True)
    ask("restart")


def main():
    say("client kazoo", kazoo.version.__version__)
    only = sys.argv[2:]
    for fn in CASES:
        if only and fn.__name__ not in only:
            continue
        clients = Clients()
        began = time.monotonic()
        try:
            run(fn, clients, "/kazoo-%s-%s" % (fn.__name__, uuid.uuid4().hex[:8])).result()
        except Exception as e:
            traceback.print_exc()
            say("FAIL", fn.__name__, repr(e))
            ask("restart")
        else:
            say("ok", fn.__name__)
        finally:
            clients.close()
            print("%s: %.2f s" % (fn.__name__, time.monotonic() - began), file=sys.stderr, flush=True)


main()
