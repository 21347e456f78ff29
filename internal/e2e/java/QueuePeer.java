// SPDX-License-Identifier: Apache-2.0

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.queue.DistributedDelayQueue;
import org.apache.curator.framework.recipes.queue.DistributedIdQueue;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.MultiItem;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.QueueSharder;
import org.apache.curator.framework.recipes.queue.QueueSharderPolicies;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryForever;

/** Does with Curator's queues what it is told on its standard input, a line for each request, and answers with one. */
final class QueuePeer implements QueueConsumer<String>, QueueSerializer<String> {
    final CuratorFramework client;

    QueuePeer(String hosts) throws Exception {
        client = CuratorFrameworkFactory.newClient(hosts, 10000, 10000, new RetryForever(50));
        client.start();
        client.blockUntilConnected();
    }

    public static void main(String[] args) throws Exception {
        QueuePeer peer = new QueuePeer(args[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String answer;
            try {
                answer = "done " + peer.serve(line.split(" "));
            } catch (Exception e) {
                answer = "failed " + e;
            }
            say(answer);
        }
        System.exit(0);
    }

    static synchronized void say(String line) {
        System.out.println(line);
    }

    QueueBuilder<String> builder(String path, boolean consumes) {
        return QueueBuilder.builder(client, consumes ? this : null, this, path).putInBackground(false);
    }

    /** Requests: what to do, the queue's path, and what more it takes. */
    String serve(String[] words) throws Exception {
        String path = words[1], locks = path + "-locks";
        switch (words[0]) {
        case "put": // items that go into one entry
            try (DistributedQueue<String> q = builder(path, false).buildQueue()) {
                q.start();
                Iterator<String> items = Arrays.asList(words).subList(2, words.length).iterator();
                q.putMulti(new MultiItem<>() {
                    @Override
                    public String nextItem() {
                        return items.hasNext() ? items.next() : null;
                    }
                });
            }
            return "";
        case "priority":
            try (DistributedPriorityQueue<String> q = builder(path, false).buildPriorityQueue(1)) {
                q.start();
                q.put(words[3], Integer.parseInt(words[2]));
            }
            return "";
        case "delay":
            try (DistributedDelayQueue<String> q = builder(path, false).buildDelayQueue()) {
                q.start();
                q.put(words[3], Long.parseLong(words[2]));
            }
            return "";
        case "id":
            try (DistributedIdQueue<String> q = builder(path, false).buildIdQueue()) {
                q.start();
                q.put(words[3], words[2]);
            }
            return "";
        case "remove":
            try (DistributedIdQueue<String> q = builder(path, false).buildIdQueue()) {
                q.start();
                return "" + q.remove(words[2]);
            }
        case "consume": // until the program ends; each message is a line
            builder(path, true).lockPath(locks).buildQueue().start();
            return "";
        case "consume-priority":
            builder(path, true).lockPath(locks).buildPriorityQueue(1).start();
            return "";
        case "consume-delay":
            builder(path, true).lockPath(locks).buildDelayQueue().start();
            return "";
        case "consume-id":
            builder(path, true).lockPath(locks).buildIdQueue().start();
            return "";
        case "shard": // puts some items by way of a QueueSharder
        case "consume-shards": {
            boolean consumes = words[0].equals("consume-shards");
            QueueSharder<String, DistributedQueue<String>> sharder = new QueueSharder<>(client, (c, shard) ->
                builder(shard, consumes).lockPath(locks + shard.substring(path.length())).buildQueue(), path, path + "-leader",
                QueueSharderPolicies.builder().newQueueThreshold(3).thresholdCheckMs(50).maxQueues(4).build());
            sharder.start();
            for (String item : Arrays.asList(words).subList(2, words.length)) {
                sharder.getQueue().put(item);
            }
            if (consumes) {
                return "";
            }
            for (int i = 0; i < 600 && sharder.getShardQty() < 2; i++) {
                TimeUnit.MILLISECONDS.sleep(50);
            }
            sharder.close();
            return "" + sharder.getShardQty();
        }
        default:
            throw new IllegalArgumentException(words[0]);
        }
    }

    @Override
    public void consumeMessage(String message) {
        say("got " + message);
    }

    @Override
    public void stateChanged(CuratorFramework c, ConnectionState s) {
        // only messages matter
    }

    @Override
    public byte[] serialize(String item) {
        return item.getBytes(StandardCharsets.UTF_8);
    }

    @Override
    public String deserialize(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }
}
