// SPDX-License-Identifier: Apache-2.0

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryForever;

/**
 * Does with Curator's recipes what it is told on its standard input. A line is WHO WHAT ARGUMENTS. Each WHO is a thread, because
 * Curator's locks belong to threads, and has at most one thing that it gives back. The answer is a line; if WHO begins with ~ the
 * answer comes at once, and "got WHO=ANSWER" when it is done.
 */
abstract class Peer {
    /** What somebody has, and how it is given back. */
    interface Release {
        void run() throws Exception;
    }

    final CuratorFramework client;
    final Map<String, ExecutorService> threads = new ConcurrentHashMap<>();
    final Map<String, Release> held = new ConcurrentHashMap<>();

    Peer(String hosts) throws Exception {
        client = CuratorFrameworkFactory.builder().connectString(hosts).sessionTimeoutMs(10000).connectionTimeoutMs(10000)
            .retryPolicy(new RetryForever(50)).ensembleTracker(false).build(); // it would have a watch of its own
        client.start();
        client.blockUntilConnected();
    }

    abstract String serve(String who, String[] words) throws Exception;

    void run() throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            boolean later = line.startsWith("~");
            String[] all = line.substring(later ? 1 : 0).split(" ");
            String who = all[0];
            String[] words = Arrays.copyOfRange(all, 1, all.length);
            if (later) {
                say("done ");
            }
            ExecutorService thread = threads.computeIfAbsent(who, w -> Executors.newSingleThreadExecutor());
            thread.execute(() -> {
                try {
                    String answer = perform(who, words);
                    say((later ? "got " + who + "=" : "done ") + answer);
                } catch (Exception e) {
                    say((later ? "got " + who + "=" : "") + "failed " + e);
                }
            });
        }
        System.exit(0);
    }

    String perform(String who, String[] words) throws Exception {
        switch (words[0]) {
        case "ping":
            return "";
        case "release":
            held.remove(who).run();
            return "";
        default:
            return serve(who, words);
        }
    }

    /** Keeps how something is given back. */
    String has(String who, Release how) {
        held.put(who, how);
        return "";
    }

    static synchronized void say(String line) {
        System.out.println(line);
    }

    static byte[] bytes(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] b) {
        return b == null ? "" : new String(b, StandardCharsets.UTF_8);
    }
}
