// SPDX-License-Identifier: Apache-2.0

import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Collectors;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.CachedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicInteger;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicValue;
import org.apache.curator.framework.recipes.atomic.PromotedToLock;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedValue;
import org.apache.curator.retry.RetryNTimes;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;

/** Curator's barriers, counters, values and caches. */
final class DataPeer extends Peer {
    final Map<String, SharedCount> counts = new ConcurrentHashMap<>();
    final Map<String, SharedValue> values = new ConcurrentHashMap<>();
    final Map<String, CachedAtomicLong> blocks = new ConcurrentHashMap<>();
    final Map<String, CuratorCache> caches = new ConcurrentHashMap<>();

    DataPeer(String hosts) throws Exception {
        super(hosts);
    }

    public static void main(String[] args) throws Exception {
        new DataPeer(args[0]).run();
    }

    static <T> String show(AtomicValue<T> v) {
        return v.succeeded() + " " + v.preValue() + " " + v.postValue();
    }

    DistributedAtomicLong number(String path) {
        PromotedToLock line = PromotedToLock.builder().lockPath(path + "-lock").retryPolicy(new RetryNTimes(100, 5)).build();
        return new DistributedAtomicLong(client, path, new RetryOneTime(1), line);
    }

    SharedCount count(String path, int seed) throws Exception {
        SharedCount c = counts.get(path);
        if (c == null) {
            c = new SharedCount(client, path, seed);
            c.start();
            counts.put(path, c);
        }
        return c;
    }

    @Override
    String serve(String who, String[] words) throws Exception {
        String path = words[1];
        switch (words[0]) {
        case "set":
            new DistributedBarrier(client, path).setBarrier();
            return "";
        case "lift":
            new DistributedBarrier(client, path).removeBarrier();
            return "";
        case "wait":
            new DistributedBarrier(client, path).waitOnBarrier();
            return "";
        case "enter": {
            DistributedDoubleBarrier b = new DistributedDoubleBarrier(client, path, Integer.parseInt(words[2]));
            b.enter();
            return has(who, b::leave);
        }
        case "long-get":
            return "" + number(path).get().postValue();
        case "long-add":
            return show(number(path).add(Long.parseLong(words[2])));
        case "long-set":
            return show(number(path).compareAndSet(Long.parseLong(words[2]), Long.parseLong(words[3])));
        case "long-count": // adds one, so often
            for (int i = 0; i < Integer.parseInt(words[2]); i++) {
                if (!number(path).increment().succeeded()) {
                    i--;
                }
            }
            return "";
        case "long-next": // of blocks of so many
            return "" + blocks.computeIfAbsent(path, p -> new CachedAtomicLong(number(p), Integer.parseInt(words[2]))).next().postValue();
        case "int-add":
            return show(new DistributedAtomicInteger(client, path, new RetryNTimes(100, 5)).add(Integer.parseInt(words[2])));
        case "count": // of a SharedCount with a seed
            return "" + count(path, Integer.parseInt(words[2])).getCount();
        case "count-set":
            count(path, 0).setCount(Integer.parseInt(words[2]));
            return "";
        case "count-try": {
            SharedCount c = count(path, 0);
            return "" + c.trySetCount(c.getVersionedValue(), Integer.parseInt(words[2]));
        }
        case "value": { // of a SharedValue with a seed
            SharedValue v = values.get(path);
            if (v == null) {
                v = new SharedValue(client, path, bytes(words[2]));
                v.start();
                values.put(path, v);
            }
            return text(v.getValue());
        }
        case "value-set":
            values.get(path).setValue(bytes(words[2]));
            return "";
        case "value-try":
            return "" + values.get(path).trySetValue(values.get(path).getVersionedValue(), bytes(words[2]));
        case "atomic-get":
            return text(new DistributedAtomicValue(client, path, new RetryNTimes(100, 5)).get().postValue());
        case "atomic-set": {
            AtomicValue<byte[]> v = new DistributedAtomicValue(client, path, new RetryNTimes(100, 5)).compareAndSet(bytes(words[2]), bytes(words[3]));
            return "" + v.succeeded();
        }
        case "cache": {
            CuratorCache c = CuratorCache.build(client, path);
            c.start();
            caches.put(path, c);
            return "";
        }
        case "cached": {
            Map<String, String> all = new TreeMap<>();
            caches.get(path).stream().forEach(d -> all.put(d.getPath(), text(d.getData())));
            return all.entrySet().stream().map(e -> e.getKey() + "=" + e.getValue()).collect(Collectors.joining(","));
        }
        case "create":
            return client.create().creatingParentContainersIfNeeded().withMode(CreateMode.valueOf(words[3])).forPath(path, bytes(words[2]));
        case "write":
            client.setData().forPath(path, bytes(words[2]));
            return "";
        case "move": // one transaction
            client.transaction().forOperations(client.transactionOp().delete().forPath(path),
                client.transactionOp().create().forPath(words[2], bytes(words[3])));
            return "";
        case "delete":
            client.delete().deletingChildrenIfNeeded().forPath(path);
            return "";
        default:
            throw new IllegalArgumentException(words[0]);
        }
    }
}
