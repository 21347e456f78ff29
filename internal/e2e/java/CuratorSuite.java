// SPDX-License-Identifier: Apache-2.0

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.CachedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicInteger;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicValue;
import org.apache.curator.framework.recipes.atomic.PromotedToLock;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.cache.NodeCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCacheEvent;
import org.apache.curator.framework.recipes.cache.TreeCache;
import org.apache.curator.framework.recipes.cache.TreeCacheEvent;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessLock;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.locks.Revoker;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.queue.DistributedDelayQueue;
import org.apache.curator.framework.recipes.queue.DistributedIdQueue;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.QueueSharder;
import org.apache.curator.framework.recipes.queue.QueueSharderPolicies;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedValue;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryForever;
import org.apache.curator.retry.RetryNTimes;
import org.apache.curator.x.discovery.ServiceCache;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.ServiceProvider;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher.Event.EventType;

/** Curator's framework and recipes. */
final class CuratorSuite extends Suite {
    static final byte[] ONE = {1}, TWO = {2, 2};

    CuratorSuite(String hosts) {
        super(hosts);
    }

    CuratorFramework open() throws Exception {
        CuratorFramework c = later(CuratorFrameworkFactory.builder().connectString(hosts).sessionTimeoutMs(10000)
            .connectionTimeoutMs(10000).retryPolicy(new RetryForever(50)).build());
        c.start();
        check(c.blockUntilConnected(BOUND, TimeUnit.SECONDS), "a connection");
        return c;
    }

    static final QueueSerializer<String> STRINGS = new QueueSerializer<>() {
        @Override
        public byte[] serialize(String s) {
            return s.getBytes(StandardCharsets.UTF_8);
        }

        @Override
        public String deserialize(byte[] b) {
            return new String(b, StandardCharsets.UTF_8);
        }
    };

    static final class Consumer implements QueueConsumer<String> {
        final Told<String> told = new Told<>();

        @Override
        public void consumeMessage(String message) {
            told.tell(message);
        }

        @Override
        public void stateChanged(CuratorFramework c, ConnectionState s) {
            // only messages matter
        }
    }

    void framework() {
        add("framework_calls", base -> {
            CuratorFramework c = open();
            c.create().creatingParentContainersIfNeeded().withMode(CreateMode.PERSISTENT).forPath(base + "/a/b", ONE);
            equal(c.getData().forPath(base + "/a/b"), ONE);
            c.create().orSetData().forPath(base + "/a/b", TWO);
            equal(c.getData().forPath(base + "/a/b"), TWO);
            String p = c.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath(base + "/a/p-", ONE);
            check(p.matches(base + "/a/_c_[0-9a-f-]{36}-p-0000000001"), p);
            equal(c.getChildren().forPath(base + "/a").size(), 2);
            c.setData().withVersion(1).forPath(base + "/a/b", ONE);
            fails(KeeperException.BadVersionException.class, () -> c.setData().withVersion(1).forPath(base + "/a/b", ONE));
            c.usingNamespace(base.substring(1)).create().forPath("/n", ONE);
            equal(c.getData().forPath(base + "/n"), ONE);
            c.delete().guaranteed().deletingChildrenIfNeeded().forPath(base);
            equal(c.checkExists().forPath(base), null);
        });
        add("framework_transaction", base -> {
            CuratorFramework c = open();
            List<CuratorTransactionResult> r = c.transaction().forOperations(
                c.transactionOp().create().forPath(base, ONE),
                c.transactionOp().create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath(base + "/s-", ONE),
                c.transactionOp().setData().withVersion(0).forPath(base, TWO),
                c.transactionOp().check().withVersion(1).forPath(base));
            equal(r.get(1).getResultPath(), base + "/s-0000000000");
            fails(KeeperException.BadVersionException.class, () -> c.transaction().forOperations(
                c.transactionOp().delete().forPath(base + "/s-0000000000"), c.transactionOp().check().withVersion(7).forPath(base)));
            check(c.checkExists().forPath(base + "/s-0000000000") != null, "the child");
        });
        add("framework_background_and_watches", base -> {
            CuratorFramework c = open();
            Told<String> told = new Told<>();
            c.create().inBackground((f, e) -> told.tell(e.getType() + " " + e.getPath() + " " + e.getResultCode())).forPath(base, ONE);
            equal(told.next(), "CREATE " + base + " 0");
            c.getData().usingWatcher((org.apache.zookeeper.Watcher) e -> told.tell(e.getType() + " " + e.getPath())).forPath(base);
            c.setData().forPath(base, TWO);
            equal(told.next(), "NodeDataChanged " + base);
            PersistentWatcher w = later(new PersistentWatcher(c, base, true));
            w.getListenable().addListener(e -> told.tell(e.getType() + " " + e.getPath()));
            CountDownLatch set = new CountDownLatch(1);
            w.getResetListenable().addListener(set::countDown);
            w.start();
            check(set.await(BOUND, TimeUnit.SECONDS), "the watch");
            c.create().forPath(base + "/kid", ONE);
            equal(told.next(), "NodeCreated " + base + "/kid");
        });
    }

    /** Many clients and threads take turns; never two at once. */
    void exclusive(List<? extends InterProcessLock> locks) throws Exception {
        AtomicInteger inside = new AtomicInteger(), most = new AtomicInteger(), turns = new AtomicInteger();
        List<Future<Void>> all = new ArrayList<>();
        for (InterProcessLock l : locks) {
            all.add(threads.submit((Callable<Void>) () -> {
                for (int i = 0; i < 5; i++) {
                    check(l.acquire(BOUND, TimeUnit.SECONDS), "the lock");
                    most.accumulateAndGet(inside.incrementAndGet(), Math::max);
                    Thread.yield();
                    turns.incrementAndGet();
                    inside.decrementAndGet();
                    l.release();
                }
                return null;
            }));
        }
        for (Future<Void> f : all) {
            get(f);
        }
        equal(most.get(), 1);
        equal(turns.get(), 5 * locks.size());
    }

    void locks() {
        add("InterProcessMutex", base -> {
            CuratorFramework a = open(), b = open();
            exclusive(Arrays.asList(new InterProcessMutex(a, base), new InterProcessMutex(a, base), new InterProcessMutex(b, base), new InterProcessMutex(b, base)));
            InterProcessMutex m = new InterProcessMutex(a, base);
            m.acquire();
            m.acquire(); // again, in the same thread
            m.release();
            check(m.isAcquiredInThisProcess(), "held");
            equal(new InterProcessMutex(b, base).acquire(100, TimeUnit.MILLISECONDS), false);
            until(() -> m.getParticipantNodes().size() == 1, "one contender");
            m.release();
        });
        add("InterProcessMutex_is_freed_by_a_close", base -> {
            CuratorFramework a = open(), b = open();
            new InterProcessMutex(a, base).acquire();
            InterProcessMutex second = new InterProcessMutex(b, base);
            Future<Boolean> waiting = threads.submit(() -> second.acquire(BOUND, TimeUnit.SECONDS));
            until(() -> b.getChildren().forPath(base).size() == 2, "the second contender");
            a.close();
            equal(get(waiting), true);
        });
        add("InterProcessMutex_revocation", base -> {
            CuratorFramework a = open(), b = open();
            InterProcessMutex m = new InterProcessMutex(a, base);
            CountDownLatch asked = new CountDownLatch(1);
            m.makeRevocable(x -> asked.countDown());
            m.acquire();
            b.sync().forPath(base);
            Revoker.attemptRevoke(b, m.getParticipantNodes().iterator().next());
            check(asked.await(BOUND, TimeUnit.SECONDS), "the request");
            m.release();
        });
        add("InterProcessSemaphoreMutex", base -> {
            CuratorFramework a = open(), b = open();
            exclusive(Arrays.asList(new InterProcessSemaphoreMutex(a, base), new InterProcessSemaphoreMutex(b, base), new InterProcessSemaphoreMutex(b, base)));
        });
        add("InterProcessReadWriteLock", base -> {
            CuratorFramework a = open(), b = open();
            InterProcessReadWriteLock x = new InterProcessReadWriteLock(a, base), y = new InterProcessReadWriteLock(b, base);
            x.readLock().acquire();
            check(y.readLock().acquire(BOUND, TimeUnit.SECONDS), "the second reader");
            equal(y.writeLock().acquire(100, TimeUnit.MILLISECONDS), false);
            y.readLock().release();
            x.readLock().release();
            check(y.writeLock().acquire(BOUND, TimeUnit.SECONDS), "the writer");
            equal(x.readLock().acquire(100, TimeUnit.MILLISECONDS), false);
            y.readLock().acquire(); // downgrade
            y.writeLock().release();
            check(x.readLock().acquire(BOUND, TimeUnit.SECONDS), "a reader beside the downgraded writer");
            x.readLock().release();
            y.readLock().release();
        });
        add("InterProcessSemaphoreV2", base -> {
            CuratorFramework a = open(), b = open();
            InterProcessSemaphoreV2 x = new InterProcessSemaphoreV2(a, base, 2), y = new InterProcessSemaphoreV2(b, base, 2);
            Lease one = x.acquire();
            y.acquire();
            equal(y.acquire(100, TimeUnit.MILLISECONDS), null);
            Future<Lease> third = threads.submit(() -> y.acquire(BOUND, TimeUnit.SECONDS));
            x.returnLease(one);
            check(get(third) != null, "the third lease");
            SharedCount limit = later(new SharedCount(b, base + "-limit", 1)); // one that others may change
            limit.start();
            InterProcessSemaphoreV2 z = new InterProcessSemaphoreV2(b, base + "-shared", limit);
            check(z.acquire(BOUND, TimeUnit.SECONDS) != null, "the one lease");
            equal(z.acquire(100, TimeUnit.MILLISECONDS), null);
            limit.setCount(2);
            check(z.acquire(BOUND, TimeUnit.SECONDS) != null, "the second lease");
        });
        add("InterProcessMultiLock", base -> {
            CuratorFramework a = open(), b = open();
            InterProcessMultiLock both = new InterProcessMultiLock(a, Arrays.asList(base + "/x", base + "/y"));
            both.acquire();
            equal(new InterProcessMutex(b, base + "/y").acquire(100, TimeUnit.MILLISECONDS), false);
            both.release();
        });
    }

    void leaders() {
        add("LeaderLatch", base -> {
            CuratorFramework a = open(), b = open();
            LeaderLatch x = later(new LeaderLatch(a, base, "x")), y = later(new LeaderLatch(b, base, "y"));
            x.start();
            check(x.await(BOUND, TimeUnit.SECONDS), "x leads");
            y.start();
            until(() -> y.getParticipants().size() == 2, "two participants");
            equal(y.getLeader().getId(), "x");
            equal(y.hasLeadership(), false);
            x.close();
            check(y.await(BOUND, TimeUnit.SECONDS), "y leads");
        });
        add("LeaderSelector", base -> {
            List<CuratorFramework> cs = Arrays.asList(open(), open(), open());
            AtomicInteger leading = new AtomicInteger(), most = new AtomicInteger();
            CountDownLatch turns = new CountDownLatch(9);
            for (CuratorFramework c : cs) {
                LeaderSelector s = later(new LeaderSelector(c, base, new LeaderSelectorListenerAdapter() {
                    @Override
                    public void takeLeadership(CuratorFramework f) {
                        most.accumulateAndGet(leading.incrementAndGet(), Math::max);
                        Thread.yield();
                        leading.decrementAndGet();
                        turns.countDown();
                    }
                }));
                s.autoRequeue();
                s.start();
            }
            check(turns.await(BOUND, TimeUnit.SECONDS), "nine turns");
            equal(most.get(), 1);
        });
    }

    void barriers() {
        add("DistributedBarrier", base -> {
            DistributedBarrier x = new DistributedBarrier(open(), base);
            CuratorFramework b = open();
            x.setBarrier();
            b.sync().forPath(base);
            DistributedBarrier y = new DistributedBarrier(b, base);
            equal(y.waitOnBarrier(100, TimeUnit.MILLISECONDS), false);
            Future<Boolean> waiting = threads.submit(() -> y.waitOnBarrier(BOUND, TimeUnit.SECONDS));
            x.removeBarrier();
            equal(get(waiting), true);
        });
        add("DistributedDoubleBarrier", base -> {
            AtomicInteger inside = new AtomicInteger();
            List<Future<Integer>> all = new ArrayList<>();
            for (int i = 0; i < 3; i++) {
                DistributedDoubleBarrier d = new DistributedDoubleBarrier(open(), base, 3);
                all.add(threads.submit(() -> {
                    inside.incrementAndGet();
                    check(d.enter(BOUND, TimeUnit.SECONDS), "entered");
                    int seen = inside.get();
                    check(d.leave(BOUND, TimeUnit.SECONDS), "left");
                    return seen;
                }));
            }
            for (Future<Integer> f : all) {
                equal(get(f), 3);
            }
        });
    }

    void queues() {
        add("DistributedQueue", base -> {
            Consumer c = new Consumer();
            DistributedQueue<String> in = later(QueueBuilder.builder(open(), null, STRINGS, base).buildQueue());
            DistributedQueue<String> out = later(QueueBuilder.builder(open(), c, STRINGS, base).lockPath(base + "-locks").buildQueue());
            in.start();
            for (int i = 0; i < 10; i++) {
                in.put("m" + i);
            }
            check(in.flushPuts(BOUND, TimeUnit.SECONDS), "the puts");
            out.start();
            List<String> got = new ArrayList<>();
            for (int i = 0; i < 10; i++) {
                got.add(c.told.next());
            }
            Collections.sort(got);
            equal(got.toString(), "[m0, m1, m2, m3, m4, m5, m6, m7, m8, m9]");
        });
        add("DistributedPriorityQueue", base -> {
            Consumer c = new Consumer();
            DistributedPriorityQueue<String> in = later(QueueBuilder.builder(open(), null, STRINGS, base).buildPriorityQueue(1));
            in.start();
            in.put("late", 9);
            in.put("early", 1);
            check(in.flushPuts(BOUND, TimeUnit.SECONDS), "the puts");
            DistributedPriorityQueue<String> out = later(QueueBuilder.builder(open(), c, STRINGS, base).buildPriorityQueue(1));
            out.start();
            equal(c.told.next(), "early");
            equal(c.told.next(), "late");
        });
        add("DistributedDelayQueue", base -> {
            Consumer c = new Consumer();
            DistributedDelayQueue<String> q = later(QueueBuilder.builder(open(), c, STRINGS, base).buildDelayQueue());
            q.start();
            long due = System.currentTimeMillis() + 500;
            q.put("x", due);
            equal(c.told.next(), "x");
            check(System.currentTimeMillis() >= due, "not before its time");
        });
        add("DistributedIdQueue", base -> {
            DistributedIdQueue<String> q = later(QueueBuilder.builder(open(), null, STRINGS, base).buildIdQueue());
            q.start();
            q.put("x", "id1");
            q.put("y", "id2");
            check(q.flushPuts(BOUND, TimeUnit.SECONDS), "the puts");
            equal(q.remove("id1"), 1);
        });
        add("QueueSharder", base -> {
            Consumer c = new Consumer();
            CuratorFramework f = open();
            QueueSharder<String, DistributedQueue<String>> s = later(new QueueSharder<>(f, (x, shard) -> QueueBuilder.builder(x, c, STRINGS, shard)
                .lockPath(base + "-locks" + shard.substring(base.length())).buildQueue(), base, base + "-leader", QueueSharderPolicies.builder().build()));
            s.start();
            s.getQueue().put("sharded");
            equal(c.told.next(), "sharded");
        });
        add("SimpleDistributedQueue", base -> {
            SimpleDistributedQueue in = new SimpleDistributedQueue(open(), base);
            CuratorFramework b = open();
            SimpleDistributedQueue out = new SimpleDistributedQueue(b, base);
            Future<byte[]> waiting = threads.submit(() -> out.poll(BOUND, TimeUnit.SECONDS));
            in.offer(ONE);
            equal(get(waiting), ONE);
            in.offer(TWO);
            b.sync().forPath(base);
            equal(out.peek(), TWO);
            equal(out.take(), TWO);
        });
    }

    void values() {
        add("SharedCount", base -> {
            SharedCount x = later(new SharedCount(open(), base, 3)), y = later(new SharedCount(open(), base, 3));
            x.start();
            y.start();
            x.setCount(5);
            until(() -> y.getCount() == 5, "the count");
            check(y.trySetCount(y.getVersionedValue(), 6), "the change");
            until(() -> x.getCount() == 6, "the change");
            equal(x.trySetCount(x.getVersionedValue(), 7), true);
        });
        add("SharedValue", base -> {
            SharedValue x = later(new SharedValue(open(), base, ONE)), y = later(new SharedValue(open(), base, ONE));
            x.start();
            y.start();
            x.setValue(TWO);
            until(() -> Arrays.equals(y.getValue(), TWO), "the value");
        });
        add("DistributedAtomicLong", base -> {
            List<Future<Void>> all = new ArrayList<>();
            for (int i = 0; i < 4; i++) {
                CuratorFramework c = open();
                DistributedAtomicLong n = new DistributedAtomicLong(c, base, new RetryNTimes(2, 1),
                    PromotedToLock.builder().lockPath(base + "-lock").timeout(BOUND, TimeUnit.SECONDS).build());
                all.add(threads.submit((Callable<Void>) () -> {
                    for (int k = 0; k < 10; k++) {
                        while (!n.increment().succeeded()) {
                            Thread.yield(); // others were quicker, as often as the policy allows
                        }
                    }
                    return null;
                }));
            }
            for (Future<Void> f : all) {
                get(f);
            }
            CuratorFramework c = open();
            c.sync().forPath(base);
            equal(new DistributedAtomicLong(c, base, new RetryNTimes(2, 1)).get().postValue(), 40L);
            DistributedAtomicValue v = new DistributedAtomicValue(c, base + "-v", new RetryNTimes(2, 1));
            equal(v.initialize(ONE), true);
            equal(v.compareAndSet(TWO, TWO).succeeded(), false);
            equal(v.compareAndSet(ONE, TWO).postValue(), TWO);
            equal(new DistributedAtomicInteger(c, base + "-i", new RetryNTimes(2, 1)).add(7).postValue(), 7);
            CachedAtomicLong ids = new CachedAtomicLong(new DistributedAtomicLong(c, base + "-ids", new RetryNTimes(2, 1)), 10);
            equal(ids.next().postValue(), 1L);
            equal(ids.next().postValue(), 2L);
        });
    }

    void caches() {
        add("CuratorCache", base -> {
            CuratorFramework c = open(), w = open();
            c.create().creatingParentsIfNeeded().forPath(base + "/a", ONE);
            w.sync().forPath(base);
            CuratorCache cache = later(CuratorCache.build(w, base));
            Told<String> told = new Told<>();
            CountDownLatch ready = new CountDownLatch(1);
            cache.listenable().addListener(CuratorCacheListener.builder().forInitialized(ready::countDown)
                .forCreates(n -> told.tell("+" + n.getPath().substring(base.length())))
                .forChanges((o, n) -> told.tell("=" + n.getPath().substring(base.length())))
                .forDeletes(n -> told.tell("-" + n.getPath().substring(base.length()))).afterInitialized().build());
            cache.start();
            check(ready.await(BOUND, TimeUnit.SECONDS), "the first picture");
            equal(cache.get(base + "/a").get().getData(), ONE);
            c.create().forPath(base + "/a/b", ONE);
            equal(told.next(), "+/a/b");
            c.setData().forPath(base + "/a/b", TWO);
            equal(told.next(), "=/a/b");
            c.delete().forPath(base + "/a/b");
            equal(told.next(), "-/a/b");
        });
        add("PathChildrenCache", base -> {
            CuratorFramework c = open(), w = open();
            c.create().forPath(base);
            c.create().forPath(base + "/a", ONE);
            w.sync().forPath(base);
            PathChildrenCache cache = later(new PathChildrenCache(w, base, true));
            Told<String> told = new Told<>();
            cache.getListenable().addListener((f, e) -> {
                if (e.getData() != null) {
                    told.tell(e.getType() + " " + e.getData().getPath().substring(base.length()));
                }
            });
            cache.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
            equal(cache.getCurrentData().size(), 1);
            c.create().forPath(base + "/b", ONE);
            equal(told.next(), PathChildrenCacheEvent.Type.CHILD_ADDED + " /b");
            c.setData().forPath(base + "/b", TWO);
            equal(told.next(), PathChildrenCacheEvent.Type.CHILD_UPDATED + " /b");
            c.delete().forPath(base + "/a");
            equal(told.next(), PathChildrenCacheEvent.Type.CHILD_REMOVED + " /a");
        });
        add("NodeCache_and_TreeCache", base -> {
            CuratorFramework c = open(), w = open();
            c.create().forPath(base, ONE);
            w.sync().forPath(base);
            NodeCache node = later(new NodeCache(w, base));
            node.start(true);
            equal(node.getCurrentData().getData(), ONE);
            TreeCache tree = later(new TreeCache(w, base));
            CountDownLatch ready = new CountDownLatch(1);
            tree.getListenable().addListener((f, e) -> {
                if (e.getType() == TreeCacheEvent.Type.INITIALIZED) {
                    ready.countDown();
                }
            });
            tree.start();
            check(ready.await(BOUND, TimeUnit.SECONDS), "the first picture");
            c.setData().forPath(base, TWO);
            c.create().forPath(base + "/x", TWO);
            until(() -> Arrays.equals(node.getCurrentData().getData(), TWO), "the node");
            until(() -> tree.getCurrentData(base + "/x") != null, "the tree");
        });
    }

    void nodes() {
        add("PersistentNode", base -> {
            CuratorFramework a = open(), b = open();
            PersistentNode n = later(new PersistentNode(a, CreateMode.EPHEMERAL, false, base, ONE));
            n.start();
            check(n.waitForInitialCreate(BOUND, TimeUnit.SECONDS), "the node");
            b.sync().forPath(base);
            b.delete().forPath(base); // it comes again
            until(() -> b.checkExists().forPath(base) != null, "the node again");
            n.setData(TWO);
            until(() -> Arrays.equals(b.getData().forPath(base), TWO), "the data");
        });
        add("PersistentTtlNode", base -> {
            CuratorFramework a = open();
            PersistentTtlNode n = later(new PersistentTtlNode(a, base, 60000, ONE));
            n.start();
            check(n.waitForInitialCreate(BOUND, TimeUnit.SECONDS), "the node");
        });
        add("GroupMember", base -> {
            GroupMember x = later(new GroupMember(open(), base, "x", ONE)), y = later(new GroupMember(open(), base, "y", TWO));
            x.start();
            y.start();
            until(() -> x.getCurrentMembers().size() == 2 && y.getCurrentMembers().size() == 2, "two members");
            y.close();
            until(() -> x.getCurrentMembers().keySet().equals(Collections.singleton("x")), "one member");
        });
        add("ServiceDiscovery", base -> {
            ServiceDiscovery<Void> one = later(ServiceDiscoveryBuilder.builder(Void.class).client(open()).basePath(base).build());
            ServiceDiscovery<Void> two = later(ServiceDiscoveryBuilder.builder(Void.class).client(open()).basePath(base).build());
            one.start();
            two.start();
            ServiceInstance<Void> web = ServiceInstance.<Void>builder().name("web").address("127.0.0.1").port(80).build();
            one.registerService(web);
            ServiceCache<Void> cache = later(two.serviceCacheBuilder().name("web").build());
            cache.start();
            until(() -> cache.getInstances().size() == 1, "the service");
            ServiceProvider<Void> provider = later(two.serviceProviderBuilder().serviceName("web").build());
            provider.start();
            until(() -> provider.getInstance() != null, "an instance");
            equal(provider.getInstance().getPort(), 80);
            one.unregisterService(web);
            until(() -> cache.getInstances().isEmpty(), "its end");
        });
    }

    void kill() {
        add("leader_kill", base -> {
            List<CuratorFramework> cs = new ArrayList<>();
            List<LeaderLatch> latches = new ArrayList<>();
            List<CuratorCache> caches = new ArrayList<>();
            List<PersistentNode> nodes = new ArrayList<>();
            List<Long> ids = new ArrayList<>();
            for (int i = 0; i < 6; i++) {
                CuratorFramework c = open();
                cs.add(c);
                LeaderLatch l = later(new LeaderLatch(c, base + "/latch"));
                l.start();
                latches.add(l);
                CuratorCache cache = later(CuratorCache.build(c, base + "/cached"));
                cache.start();
                caches.add(cache);
                PersistentNode n = later(new PersistentNode(c, CreateMode.EPHEMERAL, false, base + "/nodes/" + i, ONE));
                n.start();
                check(n.waitForInitialCreate(BOUND, TimeUnit.SECONDS), "the node");
                nodes.add(n);
                ids.add(c.getZookeeperClient().getZooKeeper().getSessionId());
            }
            InterProcessMutex held = new InterProcessMutex(cs.get(0), base + "/mutex");
            held.acquire();
            InterProcessMutex second = new InterProcessMutex(cs.get(1), base + "/mutex");
            Future<Boolean> waiting = threads.submit(() -> second.acquire(BOUND, TimeUnit.SECONDS));
            until(() -> held.getParticipantNodes().size() == 2, "the second contender");
            until(() -> latches.stream().filter(LeaderLatch::hasLeadership).count() == 1, "one leader");
            ask("kill leader");
            CuratorFramework other = open();
            other.create().creatingParentsIfNeeded().forPath(base + "/cached/x", ONE);
            for (int i = 0; i < 6; i++) {
                CuratorFramework c = cs.get(i);
                until(c.getZookeeperClient()::isConnected, "a connection");
                c.sync().forPath(base);
                equal(c.getZookeeperClient().getZooKeeper().getSessionId(), ids.get(i));
                equal(c.checkExists().forPath(base + "/nodes/" + i).getEphemeralOwner(), ids.get(i));
                CuratorCache cache = caches.get(i);
                until(() -> cache.get(base + "/cached/x").isPresent(), "the cache");
            }
            until(() -> latches.stream().filter(LeaderLatch::hasLeadership).count() == 1, "one leader again");
            equal(waiting.isDone(), false);
            held.release();
            equal(get(waiting), true);
            ask("restart");
        });
    }

    public static void main(String[] args) {
        CuratorSuite s = new CuratorSuite(args[0]);
        say("client Curator " + args[1]);
        s.framework();
        s.locks();
        s.leaders();
        s.barriers();
        s.queues();
        s.values();
        s.caches();
        s.nodes();
        s.kill();
        s.runAll(Arrays.asList(args).subList(2, args.length));
    }
}
