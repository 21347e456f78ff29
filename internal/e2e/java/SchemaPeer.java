// SPDX-License-Identifier: Apache-2.0

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.schema.SchemaSetLoader;
import org.apache.curator.framework.schema.SchemaViolation;
import org.apache.curator.retry.RetryForever;
import org.apache.zookeeper.CreateMode;

/** Works behind a schema that it has read from a znode, and with values as Jackson writes them. */
final class SchemaPeer {
    /** A value. */
    public static final class Limits {
        public int requests;
        public String owner;
    }

    final String hosts;
    final CuratorFramework plain;
    final ObjectMapper mapper = new ObjectMapper();
    CuratorFramework client;

    SchemaPeer(String hosts) throws Exception {
        this.hosts = hosts;
        plain = started(CuratorFrameworkFactory.builder());
    }

    CuratorFramework started(CuratorFrameworkFactory.Builder builder) throws Exception {
        CuratorFramework c = builder.connectString(hosts).sessionTimeoutMs(10000).connectionTimeoutMs(10000).retryPolicy(new RetryForever(50)).build();
        c.start();
        c.blockUntilConnected();
        return c;
    }

    public static void main(String[] args) throws Exception {
        SchemaPeer peer = new SchemaPeer(args[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String answer;
            try {
                answer = "done " + peer.serve(line.split(" "));
            } catch (SchemaViolation e) {
                answer = "done refused";
            } catch (Exception e) {
                answer = "failed " + e;
            }
            System.out.println(answer);
        }
        System.exit(0);
    }

    String serve(String[] words) throws Exception {
        String path = words[1];
        switch (words[0]) {
            case "schema":
                String json = new String(plain.getData().forPath(path), StandardCharsets.UTF_8);
                client = started(CuratorFrameworkFactory.builder().schemaSet(new SchemaSetLoader(json, name -> (schema, at, data, acl) -> data.length % 2 == 0).toSchemaSet(true)));
                return "read";
            case "create":
                client.create().creatingParentsIfNeeded().withMode(CreateMode.valueOf(words[2])).forPath(path, words[3].getBytes(StandardCharsets.UTF_8));
                return "allowed";
            case "set":
                client.setData().forPath(path, words[2].getBytes(StandardCharsets.UTF_8));
                return "allowed";
            case "delete":
                client.delete().forPath(path);
                return "allowed";
            case "get":
                client.getData().forPath(path);
                return "allowed";
            case "watch":
                client.getData().usingWatcher((org.apache.zookeeper.Watcher) event -> {}).forPath(path);
                return "allowed";
            case "read":
                Limits is = mapper.readValue(plain.getData().forPath(path), Limits.class);
                return is.requests + " " + is.owner;
            case "write":
                Limits limits = new Limits();
                limits.requests = Integer.parseInt(words[2]);
                limits.owner = words[3];
                plain.setData().forPath(path, mapper.writeValueAsBytes(limits));
                return "written";
            default:
                throw new IllegalArgumentException(words[0]);
        }
    }
}
