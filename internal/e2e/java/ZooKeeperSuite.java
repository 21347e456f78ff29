// SPDX-License-Identifier: Apache-2.0

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.Watcher.WatcherType;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.auth.DigestAuthenticationProvider;
import org.apache.zookeeper.version.Info;

/** ZooKeeper's own client for Java. */
final class ZooKeeperSuite extends Suite {
    static final byte[] ONE = {1}, TWO = {2, 2}, NONE = {};

    ZooKeeperSuite(String hosts) {
        super(hosts);
    }

    /** A client and the states it was told of. */
    final class Client extends ZooKeeper {
        final Told<KeeperState> states;

        private Client(String connect, int timeout, Told<KeeperState> states, long id, byte[] password) throws Exception {
            super(connect, timeout, e -> {
                if (e.getType() == EventType.None) {
                    states.tell(e.getState());
                }
            }, id, password);
            this.states = states;
        }

        void expect(KeeperState want) throws Exception {
            for (KeeperState s; (s = states.next()) != want;) {
                check(s == KeeperState.Disconnected || s == KeeperState.SyncConnected, "state " + s);
            }
        }

        void create(String path) throws Exception {
            create(path, NONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        }

        void sync(String path) throws Exception {
            CountDownLatch done = new CountDownLatch(1);
            AtomicInteger rc = new AtomicInteger();
            sync(path, (r, p, ctx) -> {
                rc.set(r);
                done.countDown();
            }, null);
            check(done.await(BOUND, TimeUnit.SECONDS), "no answer to sync");
            if (rc.get() != 0) {
                throw KeeperException.create(Code.get(rc.get()), path);
            }
        }

        /** Syncs until it has come through a change of servers. */
        void settle() throws Exception {
            until(() -> {
                try {
                    sync("/");
                    return true;
                } catch (KeeperException.ConnectionLossException e) {
                    return false;
                }
            }, "a server");
        }

        String server() {
            Matcher m = Pattern.compile("remoteserver:[^/ ]*/([0-9.:]+)").matcher(toString());
            return m.find() ? m.group(1) : "";
        }
    }

    Client open() throws Exception {
        return open(hosts, 10000, 0, NONE);
    }

    Client open(String connect, int timeout, long id, byte[] password) throws Exception {
        Told<KeeperState> states = new Told<>();
        Client c = later(id == 0 ? new Client(connect, timeout, states, 0, new byte[16]) : new Client(connect, timeout, states, id, password));
        c.expect(KeeperState.SyncConnected);
        return c;
    }

    static Watcher tell(Told<String> told) {
        return e -> {
            if (e.getType() != EventType.None) {
                told.tell(e.getType() + " " + e.getPath());
            }
        };
    }

    void calls() {
        add("create_get_set_delete", base -> {
            Client c = open();
            equal(c.create(base, ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT), base);
            Stat st = new Stat();
            equal(c.getData(base, false, st), ONE);
            equal(st.getCzxid(), st.getMzxid());
            equal(st.getVersion() + st.getCversion() + st.getAversion() + st.getNumChildren(), 0);
            equal(c.setData(base, TWO, 0).getVersion(), 1);
            fails(KeeperException.BadVersionException.class, () -> c.setData(base, ONE, 0));
            fails(KeeperException.NodeExistsException.class, () -> c.create(base, ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
            fails(KeeperException.NoNodeException.class, () -> c.create(base + "/a/b", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
            c.create(base + "/kid");
            KeeperException e = fails(KeeperException.NotEmptyException.class, () -> {
                c.delete(base, -1);
                return null;
            });
            equal(e.getPath(), base);
            c.delete(base + "/kid", 0);
            c.delete(base, 1);
            equal(c.exists(base, false), null);
        });
        add("create_modes", base -> {
            Client c = open();
            Stat st = new Stat();
            c.create(base);
            equal(c.create(base + "/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL, st), base + "/s-0000000000");
            equal(c.getData(base + "/s-0000000000", false, st), null);
            equal(c.create(base + "/e-", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL, st), base + "/e-0000000001");
            equal(st.getEphemeralOwner(), c.getSessionId());
            fails(KeeperException.NoChildrenForEphemeralsException.class,
                () -> c.create(base + "/e-0000000001/x", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
            equal(c.create(base + "/container", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER, st), base + "/container");
            equal(c.create(base + "/ttl", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, st, 60000), base + "/ttl");
            equal(c.create(base + "/ttl-", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, st, 60000), base + "/ttl-0000000004");
        });
        add("children_and_counts", base -> {
            Client c = open();
            c.create(base);
            for (int i = 0; i < 20; i++) {
                c.create(base + "/n" + i, NONE, Ids.OPEN_ACL_UNSAFE, i % 2 == 0 ? CreateMode.PERSISTENT : CreateMode.EPHEMERAL);
            }
            c.create(base + "/n0/x");
            Stat st = new Stat();
            equal(c.getChildren(base, false, st).size(), 20);
            equal(c.getChildren(base, false).size(), 20);
            equal(st.getNumChildren(), 20);
            equal(c.getAllChildrenNumber(base), 21);
            List<String> mine = c.getEphemerals(base);
            equal(mine.size(), 10);
            check(mine.contains(base + "/n1"), mine);
            check(c.getEphemerals().containsAll(mine), "all ephemerals");
        });
        add("multi", base -> {
            Client c = open();
            List<OpResult> r = c.multi(Arrays.asList(
                Op.create(base, ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(base + "/s-", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL),
                Op.create(base + "/c", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
                Op.create(base + "/t", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 60000),
                Op.setData(base, TWO, 0), Op.check(base, 1), Op.delete(base + "/t", 0)));
            equal(((OpResult.CreateResult) r.get(1)).getPath(), base + "/s-0000000000");
            equal(((OpResult.SetDataResult) r.get(4)).getStat().getVersion(), 1);
            KeeperException e = fails(KeeperException.BadVersionException.class, () -> c.multi(Arrays.asList(
                Op.create(base + "/x", ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT), Op.check(base, 7), Op.delete(base, -1))));
            List<Integer> codes = new ArrayList<>();
            for (OpResult o : e.getResults()) {
                codes.add(((OpResult.ErrorResult) o).getErr());
            }
            equal(codes, Arrays.asList(0, Code.BADVERSION.intValue(), Code.RUNTIMEINCONSISTENCY.intValue()));
            equal(c.exists(base + "/x", false), null);
        });
        add("multi_read", base -> {
            Client c = open();
            c.create(base, TWO, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            c.create(base + "/kid");
            List<OpResult> r = c.multi(Arrays.asList(Op.getData(base), Op.getChildren(base), Op.getData(base + "/none")));
            equal(((OpResult.GetDataResult) r.get(0)).getData(), TWO);
            equal(((OpResult.GetChildrenResult) r.get(1)).getChildren(), Arrays.asList("kid"));
            equal(((OpResult.ErrorResult) r.get(2)).getErr(), Code.NONODE.intValue());
        });
        add("transaction", base -> {
            Client c = open();
            c.transaction().create(base, ONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT).check(base, 0).setData(base, TWO, 0).commit();
            equal(c.getData(base, false, null), TWO);
        });
        add("asynchronous_calls_in_order", base -> {
            Client c = open();
            c.create(base);
            List<Integer> versions = Collections.synchronizedList(new ArrayList<>());
            CountDownLatch done = new CountDownLatch(600);
            for (int i = 0; i < 300; i++) {
                byte[] value = String.valueOf(i).getBytes(StandardCharsets.UTF_8);
                c.setData(base, value, -1, (rc, p, ctx, st) -> {
                    versions.add(rc == 0 ? st.getVersion() : rc);
                    done.countDown();
                }, null);
                c.getData(base, false, (rc, p, ctx, data, st) -> {
                    versions.add(rc == 0 && Arrays.equals(data, value) ? st.getVersion() : -1);
                    done.countDown();
                }, null);
            }
            check(done.await(BOUND, TimeUnit.SECONDS), "answers");
            for (int i = 0; i < 600; i++) {
                equal(versions.get(i), i / 2 + 1);
            }
        });
        add("large_data", base -> {
            Client c = open();
            byte[] data = new byte[1000000];
            Arrays.fill(data, (byte) 7);
            c.create(base, data, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            equal(c.getData(base, false, null), data);
        });
        add("acls_and_auth", base -> {
            Client c = open(), other = open();
            c.addAuthInfo("digest", "joe:secret".getBytes(StandardCharsets.UTF_8));
            c.create(base, ONE, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            other.sync(base);
            fails(KeeperException.NoAuthException.class, () -> other.getData(base, false, null));
            Id joe = new Id("digest", DigestAuthenticationProvider.generateDigest("joe:secret"));
            Stat st = new Stat();
            equal(c.getACL(base, st), Arrays.asList(new ACL(Perms.ALL, joe)));
            equal(c.setACL(base, Arrays.asList(new ACL(Perms.ALL, joe), new ACL(Perms.READ, Ids.ANYONE_ID_UNSAFE)), 0).getAversion(), 1);
            other.sync(base);
            equal(other.getData(base, false, null), ONE);
            fails(KeeperException.NoAuthException.class, () -> other.setData(base, ONE, -1));
            fails(KeeperException.InvalidACLException.class, () -> other.create(base + "-2", ONE, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
            check(c.whoAmI().stream().anyMatch(i -> i.getAuthScheme().equals("digest") && i.getUser().equals("joe")), c.whoAmI());
        });
        add("unknown_scheme_is_refused", base -> {
            Client c = open();
            c.addAuthInfo("nosuch", ONE);
            c.expect(KeeperState.AuthFailed);
        });
        add("chroot", base -> {
            Client c = open();
            c.create(base);
            Client inside = open(hosts + base, 10000, 0, NONE);
            inside.sync("/");
            inside.create("/x");
            c.sync(base);
            check(c.exists(base + "/x", false) != null, "the path");
            Told<String> told = new Told<>();
            inside.getData("/x", tell(told), null);
            c.setData(base + "/x", ONE, -1);
            equal(told.next(), "NodeDataChanged /x");
        });
        add("config_and_refused_reconfig", base -> {
            Client c = open();
            check(c.getConfig(false, new Stat()) != null, "config");
            ZooKeeperAdmin admin = later(new ZooKeeperAdmin(hosts, 10000, e -> { }));
            fails(KeeperException.class, () -> admin.reconfigure((String) null, "99", null, -1, new Stat()));
        });
        add("update_server_list", base -> {
            Client c = open();
            c.updateServerList(ask("leader"));
            c.settle();
            until(() -> c.server().equals(ask("leader")), "the move to the leader");
            check(c.getSessionId() != 0, "a session");
        });
    }

    void secure() {
        add("x509_identity", base -> {
            Client c = open();
            c.create(base, ONE, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            equal(c.getACL(base, new Stat()), Arrays.asList(new ACL(Perms.ALL, new Id("x509", "CN=e2e client"))));
        });
    }

    void watches() {
        add("one_shot_watches", base -> {
            Client c = open(), w = open();
            c.create(base);
            w.sync(base);
            Told<String> told = new Told<>();
            equal(w.exists(base + "/a", tell(told)), null);
            c.create(base + "/a");
            equal(told.next(), "NodeCreated " + base + "/a");
            w.getData(base + "/a", tell(told), null);
            c.setData(base + "/a", ONE, -1);
            equal(told.next(), "NodeDataChanged " + base + "/a");
            w.getChildren(base, tell(told));
            c.create(base + "/b");
            equal(told.next(), "NodeChildrenChanged " + base);
            w.getChildren(base + "/a", tell(told));
            c.delete(base + "/a", -1);
            equal(told.next(), "NodeDeleted " + base + "/a");
            equal(told.size(), 0);
        });
        add("persistent_watch", base -> {
            Client c = open(), w = open();
            Told<String> told = new Told<>();
            w.addWatch(base, tell(told), AddWatchMode.PERSISTENT);
            c.create(base);
            c.setData(base, ONE, -1);
            c.create(base + "/a");
            c.setData(base + "/a", ONE, -1);
            c.delete(base + "/a", -1);
            c.delete(base, -1);
            for (String s : Arrays.asList("NodeCreated", "NodeDataChanged", "NodeChildrenChanged", "NodeChildrenChanged", "NodeDeleted")) {
                equal(told.next(), s + " " + base);
            }
        });
        add("recursive_watch", base -> {
            Client c = open(), w = open();
            Told<String> told = new Told<>();
            w.addWatch(base, tell(told), AddWatchMode.PERSISTENT_RECURSIVE);
            c.create(base);
            c.create(base + "/a");
            c.create(base + "/a/b");
            c.setData(base + "/a/b", ONE, -1);
            c.delete(base + "/a/b", -1);
            for (String s : Arrays.asList("NodeCreated ", "NodeCreated /a", "NodeCreated /a/b", "NodeDataChanged /a/b", "NodeDeleted /a/b")) {
                equal(told.next(), s.replace(" ", " " + base));
            }
        });
        add("remove_watches", base -> {
            Client c = open();
            Told<String> told = new Told<>();
            Watcher w = tell(told);
            c.create(base);
            c.getData(base, w, null);
            c.removeWatches(base, w, WatcherType.Data, false);
            equal(told.next(), "DataWatchRemoved " + base);
            fails(KeeperException.NoWatcherException.class, () -> {
                c.removeWatches(base, w, WatcherType.Data, false);
                return null;
            });
            c.getChildren(base, w);
            c.exists(base, w);
            c.removeAllWatches(base, WatcherType.Any, false);
            List<String> gone = Arrays.asList(told.next(), told.next());
            check(gone.contains("DataWatchRemoved " + base) && gone.contains("ChildWatchRemoved " + base), gone);
            c.addWatch(base, w, AddWatchMode.PERSISTENT);
            c.removeWatches(base, w, WatcherType.Any, false);
            equal(told.next(), "PersistentWatchRemoved " + base);
            c.setData(base, ONE, -1);
            c.sync(base);
            equal(told.size(), 0);
        });
    }

    void sessions() {
        add("close_ends_ephemerals", base -> {
            Client c = open(), w = open();
            c.create(base, NONE, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            w.sync(base);
            Told<String> told = new Told<>();
            check(w.exists(base, tell(told)) != null, "the ephemeral");
            c.close();
            equal(told.next(), "NodeDeleted " + base);
        });
        add("session_is_expired_by_another", base -> {
            Client c = open(), w = open();
            c.create(base, NONE, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            long id = c.getSessionId();
            byte[] password = c.getSessionPasswd();
            // The two take the session from each other until the other one could close it.
            until(() -> {
                if (c.getState() == ZooKeeper.States.CLOSED) {
                    return true;
                }
                Told<KeeperState> states = new Told<>();
                Client thief = new Client(hosts, 10000, states, id, password);
                states.next();
                thief.close();
                return false;
            }, "the expiry");
            c.expect(KeeperState.Expired);
            fails(KeeperException.SessionExpiredException.class, () -> c.exists(base, false));
            w.sync(base);
            equal(w.exists(base, false), null);
        });
        add("wrong_password_expires_the_client_only", base -> {
            Client c = open(), w = open();
            c.create(base, NONE, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            Told<KeeperState> states = new Told<>();
            Client thief = later(new Client(hosts, 10000, states, c.getSessionId(), new byte[16]));
            thief.expect(KeeperState.Expired);
            c.settle();
            w.sync(base);
            check(w.exists(base, false) != null, "the ephemeral");
            equal(w.exists(base, false).getEphemeralOwner(), c.getSessionId());
        });
        add("timeouts_are_negotiated", base -> {
            Client small = open(hosts, 500, 0, NONE), large = open(hosts, 100000000, 0, NONE);
            check(small.getSessionTimeout() >= 1000, small.getSessionTimeout());
            check(large.getSessionTimeout() < 100000000 && large.getSessionTimeout() > small.getSessionTimeout(), large.getSessionTimeout());
        });
    }

    void kill() {
        add("leader_kill", base -> {
            String leader = ask("leader");
            Client at = null, elsewhere = null;
            for (int i = 0; i < 50 && (at == null || elsewhere == null); i++) {
                Client c = open();
                if (c.server().equals(leader)) {
                    at = at == null ? c : at;
                } else {
                    elsewhere = elsewhere == null ? c : elsewhere;
                }
            }
            check(at != null && elsewhere != null, "a client at the leader and one elsewhere");
            at.create(base);
            List<Client> both = Arrays.asList(at, elsewhere);
            List<Told<String>> tolds = Arrays.asList(new Told<>(), new Told<>());
            List<Long> ids = new ArrayList<>();
            for (int i = 0; i < 2; i++) {
                Client c = both.get(i);
                c.sync(base);
                String p = base + "/" + i;
                c.create(p);
                c.create(p + "/get");
                c.create(p + "/kids");
                c.create(p + "/e", NONE, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
                Watcher w = tell(tolds.get(i));
                c.getData(p + "/get", w, null);
                c.exists(p + "/new", w);
                c.getChildren(p + "/kids", w);
                c.addWatch(p + "/persistent", w, AddWatchMode.PERSISTENT);
                c.addWatch(p + "/recursive", w, AddWatchMode.PERSISTENT_RECURSIVE);
                ids.add(c.getSessionId());
            }
            ask("kill leader");
            for (int i = 0; i < 2; i++) {
                Client c = both.get(i);
                c.settle();
                equal(c.getSessionId(), ids.get(i));
                equal(c.exists(base + "/" + i + "/e", false).getEphemeralOwner(), ids.get(i));
                equal(tolds.get(i).size(), 0);
            }
            check(!at.server().equals(leader), at.server());
            Client other = open();
            other.sync(base);
            for (int i = 0; i < 2; i++) {
                String p = base + "/" + i;
                Told<String> told = tolds.get(i);
                other.setData(p + "/get", ONE, -1);
                equal(told.next(), "NodeDataChanged " + p + "/get");
                other.create(p + "/new");
                equal(told.next(), "NodeCreated " + p + "/new");
                other.create(p + "/kids/x");
                equal(told.next(), "NodeChildrenChanged " + p + "/kids");
                other.create(p + "/persistent");
                equal(told.next(), "NodeCreated " + p + "/persistent");
                other.create(p + "/recursive");
                equal(told.next(), "NodeCreated " + p + "/recursive");
                other.create(p + "/recursive/deep");
                equal(told.next(), "NodeCreated " + p + "/recursive/deep");
            }
            ask("restart");
        });
        add("writes_during_leader_kill", base -> {
            Client c = open();
            c.create(base);
            int[] acknowledged = {0};
            var writing = threads.submit(() -> {
                for (int n = 0; n < 200;) {
                    try {
                        c.create(base + "/n" + n, NONE, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
                        n++;
                    } catch (KeeperException.NodeExistsException e) {
                        n++; // an attempt whose answer was lost
                    } catch (KeeperException.ConnectionLossException e) {
                        c.settle();
                    }
                    acknowledged[0] = n;
                }
                return null;
            });
            until(() -> acknowledged[0] > 50, "the first writes");
            ask("kill leader");
            get(writing);
            Client w = open();
            w.sync(base);
            equal(w.getChildren(base, false).size(), 200);
            ask("restart");
        });
    }

    public static void main(String[] args) {
        ZooKeeperSuite s = new ZooKeeperSuite(args[0]);
        say("client Java-ZooKeeper " + Info.MAJOR + "." + Info.MINOR + "." + Info.MICRO);
        s.calls();
        if (Boolean.getBoolean("zookeeper.client.secure")) {
            s.secure();
        }
        s.watches();
        s.sessions();
        s.kill();
        s.runAll(Arrays.asList(args).subList(1, args.length));
    }
}
