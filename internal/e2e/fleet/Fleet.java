// SPDX-License-Identifier: Apache-2.0

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryForever;

/**
 * Curator's part of a mixed fleet: two clients take a lock in turns with programs of other kinds. Arguments: connect
 * string, path of the lock, directory of the critical section, turns of each client.
 */
final class Fleet {
    /** An InterProcessMutex that tells the znode of its holder. */
    static final class Mutex extends InterProcessMutex {
        Mutex(CuratorFramework c, String path) {
            super(c, path);
        }

        String node() {
            return getLockPath();
        }
    }

    /** Fails if anybody else is inside. */
    static void critical(Path dir, String node, String who) throws Exception {
        Path held = Files.createFile(dir.resolve("held"));
        Path counter = dir.resolve("counter"), next = dir.resolve("counter." + who);
        int n = Integer.parseInt(Files.readString(counter).trim());
        String line = Integer.parseInt(node.substring(node.length() - 10)) + " " + who + "\n";
        Files.write(dir.resolve("log"), line.getBytes(StandardCharsets.UTF_8), StandardOpenOption.APPEND, StandardOpenOption.CREATE);
        Files.writeString(next, String.valueOf(n + 1));
        Files.move(next, counter, StandardCopyOption.ATOMIC_MOVE);
        Files.delete(held);
    }

    public static void main(String[] args) throws Exception {
        Path dir = Path.of(args[2]);
        int turns = Integer.parseInt(args[3]);
        List<String> failures = Collections.synchronizedList(new ArrayList<>());
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            String who = "curator" + i;
            Thread t = new Thread(() -> {
                try (CuratorFramework c = CuratorFrameworkFactory.builder().connectString(args[0]).sessionTimeoutMs(10000)
                    .connectionTimeoutMs(10000).retryPolicy(new RetryForever(50)).build()) {
                    c.start();
                    for (int n = 0; n < turns; n++) {
                        Mutex m = new Mutex(c, args[1]);
                        if (!m.acquire(60, TimeUnit.SECONDS)) {
                            throw new AssertionError("not granted");
                        }
                        critical(dir, m.node(), who);
                        m.release();
                    }
                } catch (Throwable e) {
                    e.printStackTrace();
                    failures.add(e.toString());
                }
            });
            t.start();
            threads.add(t);
        }
        for (Thread t : threads) {
            t.join();
        }
        System.out.println("client Curator " + args[4]);
        System.out.println(failures.isEmpty() ? "ok curator" : "FAIL curator " + failures.toString().replace('\n', ' '));
        System.exit(0);
    }
}
