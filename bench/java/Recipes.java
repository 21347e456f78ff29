// SPDX-License-Identifier: Apache-2.0

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryForever;

/** Drives Curator's recipes and prints how many nanoseconds that took, without the start. */
final class Recipes {
    static CuratorFramework connect(String hosts) throws Exception {
        CuratorFramework c = CuratorFrameworkFactory.newClient(hosts, 20000, 10000, new RetryForever(50));
        c.start();
        c.blockUntilConnected();
        return c;
    }

    static final QueueSerializer<String> TEXT = new QueueSerializer<>() {
        @Override
        public byte[] serialize(String s) {
            return s.getBytes(StandardCharsets.UTF_8);
        }

        @Override
        public String deserialize(byte[] b) {
            return new String(b, StandardCharsets.UTF_8);
        }
    };

    public static void main(String[] args) throws Exception {
        String[] hosts = args[1].split(",");
        int n = Integer.parseInt(args[2]), who = Integer.parseInt(args[3]);
        List<CuratorFramework> clients = new ArrayList<>();
        for (int i = 0; i < Math.min(who, hosts.length); i++) {
            clients.add(connect(hosts[i]));
        }
        long took;
        switch (args[0]) {
        case "locks":
            took = locks(clients, n, who);
            break;
        case "queue":
            took = queue(clients, n, who);
            break;
        default:
            took = one(clients.get(0), args[0], n);
        }
        System.out.println(took);
        System.exit(0);
    }

    /** Hand-overs of one lock among many threads, each with a lock object of its own. */
    static long locks(List<CuratorFramework> clients, int n, int who) throws Exception {
        AtomicInteger left = new AtomicInteger(n);
        List<Thread> threads = new ArrayList<>();
        CountDownLatch go = new CountDownLatch(1);
        for (int i = 0; i < who; i++) {
            InterProcessMutex lock = new InterProcessMutex(clients.get(i % clients.size()), "/lock");
            threads.add(start(() -> {
                go.await();
                while (left.getAndDecrement() > 0) {
                    lock.acquire();
                    lock.release();
                }
            }));
        }
        long began = System.nanoTime();
        go.countDown();
        for (Thread t : threads) {
            t.join();
        }
        return System.nanoTime() - began;
    }

    /** Items through a queue with a lock path, which is what makes it survive a consumer. */
    static long queue(List<CuratorFramework> clients, int n, int who) throws Exception {
        CountDownLatch all = new CountDownLatch(n);
        QueueConsumer<String> consumer = new QueueConsumer<>() {
            @Override
            public void consumeMessage(String item) {
                all.countDown();
            }

            @Override
            public void stateChanged(CuratorFramework client, ConnectionState state) {
            }
        };
        for (int i = 0; i < who; i++) {
            QueueBuilder.builder(clients.get(i % clients.size()), consumer, TEXT, "/queue").lockPath("/queue-locks").buildQueue().start();
        }
        AtomicInteger left = new AtomicInteger(n);
        long began = System.nanoTime();
        for (int i = 0; i < who; i++) {
            DistributedQueue<String> q = QueueBuilder.builder(clients.get(i % clients.size()), null, TEXT, "/queue").putInBackground(false).buildQueue();
            q.start();
            start(() -> {
                while (left.getAndDecrement() > 0) {
                    q.put("item");
                }
            });
        }
        all.await();
        return System.nanoTime() - began;
    }

    /** One user alone, n times; the first time is not counted by who asks, see "warm". */
    static long one(CuratorFramework c, String what, int n) throws Exception {
        long began = System.nanoTime();
        switch (what) {
        case "connect":
            break;
        case "lock":
            InterProcessMutex lock = new InterProcessMutex(c, "/lock");
            for (int i = 0; i < n; i++) {
                lock.acquire();
                lock.release();
            }
            break;
        case "semaphore":
            InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(c, "/semaphore", 4);
            for (int i = 0; i < n; i++) {
                Lease lease = semaphore.acquire();
                semaphore.returnLease(lease);
            }
            break;
        case "items":
            List<CuratorFramework> one = new ArrayList<>();
            one.add(c);
            return queue(one, n, 1);
        default:
            throw new IllegalArgumentException(what);
        }
        return System.nanoTime() - began;
    }

    interface Work {
        void run() throws Exception;
    }

    static Thread start(Work work) {
        Thread t = new Thread(() -> {
            try {
                work.run();
            } catch (Exception e) {
                e.printStackTrace();
                System.exit(1);
            }
        });
        t.start();
        return t;
    }
}
