// SPDX-License-Identifier: Apache-2.0

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Runs cases and talks to the test as ../doc.go says. */
abstract class Suite {
    /** Seconds that a wait may take before the case has failed. */
    static final int BOUND = 30;

    interface Case {
        void run(String base) throws Exception;
    }

    final String hosts;
    private final Map<String, Case> cases = new LinkedHashMap<>();
    private final Deque<AutoCloseable> opened = new ArrayDeque<>();
    private final BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    final ExecutorService threads = Executors.newCachedThreadPool(r -> {
        Thread t = new Thread(r);
        t.setDaemon(true);
        return t;
    });

    Suite(String hosts) {
        this.hosts = hosts;
    }

    void add(String name, Case c) {
        cases.put(name, c);
    }

    void runAll(List<String> only) {
        for (Map.Entry<String, Case> e : cases.entrySet()) {
            if (!only.isEmpty() && !only.contains(e.getKey())) {
                continue;
            }
            long began = System.nanoTime();
            String base = "/java-" + e.getKey() + "-" + UUID.randomUUID().toString().substring(0, 8);
            try {
                get(threads.submit((Callable<Void>) () -> {
                    e.getValue().run(base);
                    return null;
                }));
                say("ok " + e.getKey());
            } catch (Throwable t) {
                t.printStackTrace();
                say("FAIL " + e.getKey() + " " + t);
                try {
                    ask("restart");
                } catch (Exception ignored) {
                    t.printStackTrace();
                }
            }
            while (!opened.isEmpty()) {
                try {
                    opened.pop().close();
                } catch (Exception ignored) {
                    // what a case has closed itself
                }
            }
            System.err.printf("%s: %.2f s%n", e.getKey(), (System.nanoTime() - began) / 1e9);
        }
        System.exit(0);
    }

    /** Closes c when the case has ended. */
    synchronized <T extends AutoCloseable> T later(T c) {
        opened.push(c);
        return c;
    }

    static synchronized void say(String line) {
        System.out.println(line.replace('\n', ' '));
        System.out.flush();
    }

    String ask(String request) throws Exception {
        say("ask " + request);
        String answer = in.readLine();
        check(answer != null && !answer.startsWith("error"), answer);
        return answer;
    }

    static <T> T get(Future<T> f) throws Exception {
        return f.get(2 * BOUND, TimeUnit.SECONDS);
    }

    static void check(boolean ok, Object what) {
        if (!ok) {
            throw new AssertionError(String.valueOf(what));
        }
    }

    static void equal(Object got, Object want) {
        boolean same = got instanceof byte[] && want instanceof byte[] ? Arrays.equals((byte[]) got, (byte[]) want) : Objects.equals(got, want);
        check(same, "got " + got + ", want " + want);
    }

    static <T extends Throwable> T fails(Class<T> kind, Callable<?> c) {
        try {
            c.call();
        } catch (Throwable t) {
            if (kind.isInstance(t)) {
                return kind.cast(t);
            }
            throw new AssertionError("want " + kind.getSimpleName(), t);
        }
        throw new AssertionError("no " + kind.getSimpleName());
    }

    /** Waits for what nothing tells. */
    static void until(Callable<Boolean> c, String what) throws Exception {
        for (long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(BOUND); !c.call(); Thread.sleep(10)) {
            check(System.nanoTime() < end, "waited in vain for " + what);
        }
    }

    /** What callbacks tell, in order. */
    static final class Told<T> {
        private final BlockingQueue<T> queue = new LinkedBlockingQueue<>();

        void tell(T t) {
            queue.add(t);
        }

        T next() throws Exception {
            T t = queue.poll(BOUND, TimeUnit.SECONDS);
            check(t != null, "waited in vain for an event");
            return t;
        }

        int size() {
            return queue.size();
        }
    }
}
