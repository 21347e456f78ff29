// SPDX-License-Identifier: Apache-2.0

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.leader.Participant;
import org.apache.curator.framework.recipes.locks.InterProcessLock;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.locks.Revoker;

/** Curator's locks, semaphores and elections. */
final class RightsPeer extends Peer {
    final Map<String, InterProcessReadWriteLock> locks = new ConcurrentHashMap<>();

    RightsPeer(String hosts) throws Exception {
        super(hosts);
    }

    public static void main(String[] args) throws Exception {
        new RightsPeer(args[0]).run();
    }

    @Override
    String serve(String who, String[] words) throws Exception {
        String path = words[1];
        switch (words[0]) {
        case "mutex": {
            InterProcessMutex m = new InterProcessMutex(client, path);
            m.makeRevocable(l -> say("got " + who + "=asked"));
            m.acquire();
            return has(who, m::release);
        }
        case "semaphore-mutex": {
            InterProcessSemaphoreMutex m = new InterProcessSemaphoreMutex(client, path);
            m.acquire();
            return has(who, m::release);
        }
        case "revoke":
            Revoker.attemptRevoke(client, path);
            return "";
        case "read":
        case "write": {
            InterProcessReadWriteLock rw = new InterProcessReadWriteLock(client, path);
            InterProcessLock l = words[0].equals("read") ? rw.readLock() : rw.writeLock();
            l.acquire();
            locks.put(who, rw);
            return has(who, l::release);
        }
        case "downgrade": { // who has the write lock
            InterProcessReadWriteLock rw = locks.get(who);
            rw.readLock().acquire();
            rw.writeLock().release();
            return has(who, rw.readLock()::release);
        }
        case "try-write":
            return "" + new InterProcessReadWriteLock(client, path).writeLock().acquire(100, TimeUnit.MILLISECONDS);
        case "multi": {
            InterProcessMultiLock m = new InterProcessMultiLock(client, Arrays.asList(words).subList(1, words.length));
            m.acquire();
            return has(who, m::release);
        }
        case "lease": { // limit, how many
            InterProcessSemaphoreV2 s = new InterProcessSemaphoreV2(client, path, Integer.parseInt(words[2]));
            Collection<Lease> leases = s.acquire(Integer.parseInt(words[3]));
            return has(who, () -> s.returnAll(leases));
        }
        case "try-lease": {
            InterProcessSemaphoreV2 s = new InterProcessSemaphoreV2(client, path, Integer.parseInt(words[2]));
            Lease lease = s.acquire(100, TimeUnit.MILLISECONDS);
            return lease == null ? "false" : "true" + has(who, lease::close);
        }
        case "latch": {
            LeaderLatch l = new LeaderLatch(client, path, words[2]);
            l.start();
            l.await();
            return has(who, l::close);
        }
        case "latches": {
            List<String> list = new ArrayList<>();
            for (Participant p : new LeaderLatch(client, path).getParticipants()) {
                list.add((p.isLeader() ? "*" : "") + p.getId());
            }
            Collections.sort(list);
            return String.join(",", list);
        }
        case "select": { // leads until it is released
            CountDownLatch leads = new CountDownLatch(1), enough = new CountDownLatch(1);
            LeaderSelector s = new LeaderSelector(client, path, new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework c) throws Exception {
                    leads.countDown();
                    enough.await();
                }
            });
            s.setId(words[2]);
            s.start();
            leads.await();
            return has(who, enough::countDown);
        }
        case "selected":
            return new LeaderSelector(client, path, new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework c) {
                    // never started
                }
            }).getLeader().getId();
        case "contend-rw": { // the room, how often
            InterProcessReadWriteLock rw = new InterProcessReadWriteLock(client, path);
            for (int i = 0; i < Integer.parseInt(words[3]); i++) {
                boolean writes = i % 3 == 0;
                InterProcessLock l = writes ? rw.writeLock() : rw.readLock();
                l.acquire();
                List<String> in = pass(words[2], (writes ? "w" : "r") + who);
                if (writes && in.size() > 1 || !writes && in.stream().anyMatch(n -> n.startsWith("w"))) {
                    throw new IllegalStateException(in + " are in at once");
                }
                l.release();
            }
            return "";
        }
        case "contend-lease": { // the room, how often, the limit
            InterProcessSemaphoreV2 s = new InterProcessSemaphoreV2(client, path, Integer.parseInt(words[4]));
            for (int i = 0; i < Integer.parseInt(words[3]); i++) {
                Lease lease = s.acquire();
                List<String> in = pass(words[2], who);
                if (in.size() > Integer.parseInt(words[4])) {
                    throw new IllegalStateException(in + " are in at once");
                }
                s.returnLease(lease);
            }
            return "";
        }
        default:
            throw new IllegalArgumentException(words[0]);
        }
    }

    /** Goes into a room, stays a moment, and goes out again; it returns who was in. */
    List<String> pass(String room, String name) throws Exception {
        String path = client.create().forPath(room + "/" + name);
        for (int i = 0; i < 3; i++) { // others who may come in do so meanwhile
            client.setData().forPath(path);
        }
        List<String> in = client.getChildren().forPath(room);
        client.delete().forPath(path);
        return in;
    }
}
