// SPDX-License-Identifier: Apache-2.0

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.retry.RetryForever;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.ServiceInstanceBuilder;
import org.apache.curator.x.discovery.ServiceProvider;
import org.apache.curator.x.discovery.ServiceType;
import org.apache.curator.x.discovery.UriSpec;
import org.apache.curator.x.discovery.details.JsonInstanceSerializer;
import org.apache.zookeeper.CreateMode;

/** Does with Curator's presence recipes and service discovery what it is told, a line for each request. */
final class PresencePeer {
    final CuratorFramework client;
    final Map<String, GroupMember> members = new HashMap<>();
    final Map<String, PersistentNode> nodes = new HashMap<>();
    final Map<String, PersistentTtlNode> lasting = new HashMap<>();
    final Map<String, ServiceDiscovery<Object>> registries = new HashMap<>();
    final Map<String, ServiceInstance<Object>> services = new HashMap<>();
    final Map<String, ServiceProvider<Object>> providers = new HashMap<>();

    PresencePeer(String hosts) throws Exception {
        client = CuratorFrameworkFactory.newClient(hosts, 10000, 10000, new RetryForever(50));
        client.start();
        client.blockUntilConnected();
    }

    public static void main(String[] args) throws Exception {
        PresencePeer peer = new PresencePeer(args[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            try {
                System.out.println("done " + peer.serve(line.split(" ")));
            } catch (Exception e) {
                System.out.println("failed " + e);
            }
        }
        System.exit(0);
    }

    static byte[] bytes(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    ServiceDiscovery<Object> registry(String base) throws Exception {
        ServiceDiscovery<Object> r = registries.get(base);
        if (r == null) {
            r = ServiceDiscoveryBuilder.builder(Object.class).client(client).basePath(base)
                .serializer(new JsonInstanceSerializer<>(Object.class, !base.endsWith("enabled"))).build();
            r.start();
            registries.put(base, r);
        }
        return r;
    }

    static String show(ServiceInstance<Object> i) {
        return i.getId() + "@" + i.getAddress() + ":" + i.getPort() + "/" + i.getSslPort() + "=" + i.getPayload() + ";" + i.getServiceType()
            + ";" + i.isEnabled() + ";" + i.buildUriSpec();
    }

    String serve(String[] words) throws Exception {
        String path = words[1];
        switch (words[0]) {
        case "join": { // a group, as an id, with some data
            GroupMember m = new GroupMember(client, path, words[2], bytes(words[3]));
            m.start();
            members.put(path, m);
            return "";
        }
        case "change":
            members.get(path).setThisData(bytes(words[2]));
            return "";
        case "members": {
            List<String> list = new ArrayList<>();
            members.get(path).getCurrentMembers().forEach((id, data) -> list.add(id + "=" + new String(data, StandardCharsets.UTF_8)));
            Collections.sort(list);
            return String.join(",", list);
        }
        case "leave":
            members.remove(path).close();
            return "";
        case "publish": {
            PersistentNode n = new PersistentNode(client, CreateMode.EPHEMERAL, false, path, bytes(words[2]));
            n.start();
            nodes.put(path, n);
            return "";
        }
        case "unpublish":
            nodes.remove(path).close();
            return "";
        case "keep": {
            PersistentTtlNode n = new PersistentTtlNode(client, path, Long.parseLong(words[2]), bytes(words[3]));
            n.start();
            boolean created = n.waitForInitialCreate(20, TimeUnit.SECONDS);
            lasting.put(path, n);
            return "" + created;
        }
        case "unkeep":
            lasting.remove(path).close();
            return "";
        case "register": { // base, name, id, address, port, type, payload
            ServiceInstanceBuilder<Object> b = ServiceInstance.<Object>builder().name(words[2]).id(words[3]).address(words[4])
                .port(Integer.parseInt(words[5])).serviceType(ServiceType.valueOf(words[6])).uriSpec(new UriSpec("{scheme}://{address}:{port}/"));
            Object payload;
            switch (words[7]) {
            case "null":
                payload = null;
                break;
            case "long":
                payload = 7L;
                break;
            case "map":
                payload = new HashMap<>(Map.of("zone", "east"));
                break;
            default:
                payload = words[7];
            }
            if (payload != null) {
                b.payload(payload);
            }
            ServiceInstance<Object> i = b.build();
            registry(path).registerService(i);
            services.put(words[3], i);
            return "";
        }
        case "unregister":
            registry(path).unregisterService(services.remove(words[2]));
            return "";
        case "services": {
            List<String> list = new ArrayList<>(registry(path).queryForNames());
            Collections.sort(list);
            return String.join(",", list);
        }
        case "instances": {
            List<String> list = new ArrayList<>();
            for (ServiceInstance<Object> i : registry(path).queryForInstances(words[2])) {
                list.add(show(i));
            }
            Collections.sort(list);
            return String.join(",", list);
        }
        case "pick": {
            ServiceProvider<Object> p = providers.get(path);
            if (p == null) {
                p = registry(path).serviceProviderBuilder().serviceName(words[2]).build();
                p.start();
                providers.put(path, p);
            }
            ServiceInstance<Object> i = p.getInstance();
            return i == null ? "" : i.getId();
        }
        default:
            throw new IllegalArgumentException(words[0]);
        }
    }
}
