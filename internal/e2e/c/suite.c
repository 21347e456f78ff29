// SPDX-License-Identifier: Apache-2.0

// The C client, multithreaded; see ../doc.go for how a suite talks to its test.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>
#include <zookeeper/zookeeper_version.h>

enum { bound = 30 }; // seconds that a wait may take before the case has failed

static const char *hosts;
static char base[128];   // the case's own znode
static char reason[512]; // why the case failed

static int fail(const char *file, int line, const char *format, ...) {
	int n = snprintf(reason, sizeof reason, "%s:%d: ", file, line);
	va_list args;
	va_start(args, format);
	vsnprintf(reason + n, sizeof reason - n, format, args);
	va_end(args);
	return -1;
}

#define FAIL(...) return fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(cond)                        \
	do {                                   \
		if (!(cond)) FAIL("not %s", #cond); \
	} while (0)
#define RC(want, call)                                                                        \
	do {                                                                                      \
		int rc_ = (call);                                                                     \
		if (rc_ != (want)) FAIL("%s: got %s (%d), want %s", #call, zerror(rc_), rc_, zerror(want)); \
	} while (0)
#define DO(call)                   \
	do {                           \
		if ((call) != 0) return -1; \
	} while (0)

// p makes a path below the case's own; a few calls may be used in one expression.
static const char *p(const char *name) {
	static __thread char paths[8][256];
	static __thread int next;
	char *s = paths[next++ % 8];
	snprintf(s, 256, "%s%s", base, name);
	return s;
}

static int ask(const char *request, char *answer, size_t size) {
	printf("ask %s\n", request);
	fflush(stdout);
	if (!fgets(answer, size, stdin)) FAIL("no answer to %s", request);
	answer[strcspn(answer, "\n")] = 0;
	if (strncmp(answer, "error", 5) == 0) FAIL("%s", answer);
	return 0;
}

// --- clients, and what they are told

typedef struct {
	int type, state;
	char path[256];
} event;

typedef struct {
	zhandle_t *zh;
	pthread_mutex_t mu;
	pthread_cond_t changed;
	int state;
	int connects; // how often it was connected
	event events[256];
	int n; // events of watches
} client;

static client *opened[64];
static int n_opened;

static void watcher(zhandle_t *zh, int type, int state, const char *path, void *context) {
	client *c = context ? context : (client *)zoo_get_context(zh);
	pthread_mutex_lock(&c->mu);
	if (type == ZOO_SESSION_EVENT) {
		if (c->state != state && state == ZOO_CONNECTED_STATE) c->connects++;
		c->state = state;
	} else if (c->n < 256) {
		event *e = &c->events[c->n++];
		e->type = type;
		e->state = state;
		snprintf(e->path, sizeof e->path, "%s", path ? path : "");
	}
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->mu);
}

static struct timespec deadline(void) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += bound;
	return t;
}

// await_state waits until the client is in a state, having been connected a number of times.
static int await_state(client *c, int state, int connects) {
	struct timespec end = deadline();
	pthread_mutex_lock(&c->mu);
	int rc = 0;
	while (rc == 0 && (c->state != state || c->connects < connects)) rc = pthread_cond_timedwait(&c->changed, &c->mu, &end);
	int got = c->state;
	pthread_mutex_unlock(&c->mu);
	if (rc != 0) FAIL("the client stays in state %d, want %d", got, state);
	return 0;
}

// await_events waits for n events in all.
static int await_events(client *c, int n) {
	struct timespec end = deadline();
	pthread_mutex_lock(&c->mu);
	int rc = 0;
	while (rc == 0 && c->n < n) rc = pthread_cond_timedwait(&c->changed, &c->mu, &end);
	int got = c->n;
	pthread_mutex_unlock(&c->mu);
	if (rc != 0) FAIL("%d events, want %d", got, n);
	return 0;
}

static int saw(client *c, int from, int type, const char *path) {
	int found = 0;
	pthread_mutex_lock(&c->mu);
	for (int i = from; i < c->n; i++) found |= c->events[i].type == type && strcmp(c->events[i].path, path) == 0;
	pthread_mutex_unlock(&c->mu);
	return found;
}

static client *open_with(int timeout, const clientid_t *id) {
	client *c = calloc(1, sizeof *c);
	pthread_mutex_init(&c->mu, NULL);
	pthread_cond_init(&c->changed, NULL);
	opened[n_opened++] = c;
	c->zh = zookeeper_init(hosts, watcher, timeout, id, c, 0);
	return c;
}

static client *connect_client(void) {
	client *c = open_with(10000, NULL);
	if (await_state(c, ZOO_CONNECTED_STATE, 1) != 0) exit(1);
	return c;
}

static void close_all(void) {
	while (n_opened > 0) {
		client *c = opened[--n_opened];
		if (c->zh) zookeeper_close(c->zh);
		free(c);
	}
}

static void shut(client *c) {
	zookeeper_close(c->zh);
	c->zh = NULL;
}

static int make(client *c, const char *path) { return zoo_create(c->zh, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0); }

// --- calls

static int create_get_set_delete(void) {
	client *c = connect_client();
	char path[256], data[64];
	struct Stat st;
	RC(ZOK, zoo_create(c->zh, p(""), "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path));
	CHECK(strcmp(path, p("")) == 0);
	int len = sizeof data;
	RC(ZOK, zoo_get(c->zh, p(""), 0, data, &len, &st));
	CHECK(len == 3 && memcmp(data, "one", 3) == 0);
	CHECK(st.version == 0 && st.czxid == st.mzxid && st.dataLength == 3 && st.numChildren == 0);
	RC(ZOK, zoo_set2(c->zh, p(""), "two!", 4, 0, &st));
	CHECK(st.version == 1 && st.dataLength == 4 && st.mzxid > st.czxid);
	RC(ZBADVERSION, zoo_set(c->zh, p(""), "x", 1, 0));
	RC(ZNODEEXISTS, make(c, p("")));
	RC(ZNONODE, make(c, p("/a/b")));
	RC(ZBADARGUMENTS, make(c, "no-slash"));
	RC(ZNONODE, zoo_exists(c->zh, p("/none"), 0, &st));
	RC(ZOK, make(c, p("/kid")));
	RC(ZNOTEMPTY, zoo_delete(c->zh, p(""), -1));
	RC(ZBADVERSION, zoo_delete(c->zh, p("/kid"), 5));
	RC(ZOK, zoo_delete(c->zh, p("/kid"), 0));
	RC(ZOK, zoo_delete(c->zh, p(""), 1));
	RC(ZNONODE, zoo_delete(c->zh, p(""), -1));
	return 0;
}

static int null_and_empty_data(void) {
	client *c = connect_client();
	char data[8];
	struct Stat st;
	int len = sizeof data;
	RC(ZOK, zoo_create(c->zh, p(""), NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
	RC(ZOK, zoo_get(c->zh, p(""), 0, data, &len, &st));
	CHECK(len == -1 && st.dataLength == 0);
	RC(ZOK, zoo_set(c->zh, p(""), "", 0, -1));
	len = sizeof data;
	RC(ZOK, zoo_get(c->zh, p(""), 0, data, &len, &st));
	CHECK(len == 0);
	return 0;
}

static int create_modes(void) {
	client *c = connect_client();
	char path[256];
	struct Stat st;
	RC(ZOK, make(c, p("")));
	RC(ZOK, zoo_create(c->zh, p("/s-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL, path, sizeof path));
	CHECK(strcmp(path, p("/s-0000000000")) == 0);
	RC(ZOK, zoo_create2(c->zh, p("/e-"), "abc", 3, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL_SEQUENTIAL, path, sizeof path, &st));
	CHECK(strcmp(path, p("/e-0000000001")) == 0);
	CHECK(st.ephemeralOwner == zoo_client_id(c->zh)->client_id && st.dataLength == 3);
	RC(ZNOCHILDRENFOREPHEMERALS, make(c, p("/e-0000000001/x")));
	RC(ZOK, zoo_create2(c->zh, p("/container"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, path, sizeof path, &st));
	RC(ZOK, zoo_create2_ttl(c->zh, p("/ttl"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 60000, path, sizeof path, &st));
	RC(ZOK, zoo_create_ttl(c->zh, p("/ttl-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 60000, path, sizeof path));
	CHECK(strcmp(path, p("/ttl-0000000004")) == 0);
	return 0;
}

static int children(void) {
	client *c = connect_client();
	RC(ZOK, make(c, p("")));
	char name[32];
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof name, "/n%02d", i);
		RC(ZOK, make(c, p(name)));
	}
	struct String_vector v;
	struct Stat st;
	RC(ZOK, zoo_get_children(c->zh, p(""), 0, &v));
	CHECK(v.count == 50);
	deallocate_String_vector(&v);
	RC(ZOK, zoo_get_children2(c->zh, p(""), 0, &v, &st));
	CHECK(v.count == 50 && st.numChildren == 50 && st.cversion == 50);
	deallocate_String_vector(&v);
	return 0;
}

static int multi(void) {
	client *c = connect_client();
	char a[256], s[256];
	struct Stat st;
	zoo_op_t ops[6];
	zoo_op_result_t results[6];
	RC(ZOK, make(c, p("")));
	zoo_create_op_init(&ops[0], p("/a"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, a, sizeof a);
	zoo_create_op_init(&ops[1], p("/s-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL, s, sizeof s);
	zoo_set_op_init(&ops[2], p("/a"), "2", 1, 0, &st);
	zoo_check_op_init(&ops[3], p("/a"), 1);
	zoo_create_op_init(&ops[4], p("/gone"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
	zoo_delete_op_init(&ops[5], p("/gone"), 0);
	RC(ZOK, zoo_multi(c->zh, 6, ops, results));
	for (int i = 0; i < 6; i++) RC(ZOK, results[i].err);
	CHECK(strcmp(a, p("/a")) == 0 && strcmp(s, p("/s-0000000001")) == 0 && st.version == 1);

	zoo_create_op_init(&ops[0], p("/b"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
	zoo_check_op_init(&ops[1], p("/a"), 99);
	zoo_delete_op_init(&ops[2], p("/a"), -1);
	RC(ZBADVERSION, zoo_multi(c->zh, 3, ops, results));
	RC(ZOK, results[0].err);
	RC(ZBADVERSION, results[1].err);
	RC(ZRUNTIMEINCONSISTENCY, results[2].err);
	RC(ZNONODE, zoo_exists(c->zh, p("/b"), 0, &st));
	RC(ZOK, zoo_exists(c->zh, p("/a"), 0, &st));
	return 0;
}

// gate counts completions.
typedef struct {
	pthread_mutex_t mu;
	pthread_cond_t changed;
	int done, wrong, rc;
	long long czxid;
	char text[256];
} gate;

static void gate_init(gate *g) {
	memset(g, 0, sizeof *g);
	pthread_mutex_init(&g->mu, NULL);
	pthread_cond_init(&g->changed, NULL);
}

static void gate_pass(gate *g, int rc, int wrong) {
	pthread_mutex_lock(&g->mu);
	g->done++;
	g->wrong += wrong;
	if (rc != ZOK) g->rc = rc;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->mu);
}

static int gate_wait(gate *g, int n) {
	struct timespec end = deadline();
	pthread_mutex_lock(&g->mu);
	int rc = 0;
	while (rc == 0 && g->done < n) rc = pthread_cond_timedwait(&g->changed, &g->mu, &end);
	int done = g->done;
	pthread_mutex_unlock(&g->mu);
	if (rc != 0) FAIL("%d completions, want %d", done, n);
	return 0;
}

static gate *the_gate;

static void on_void(int rc, const void *data) { gate_pass((gate *)data, rc, 0); }
static void on_stat(int rc, const struct Stat *st, const void *data) {
	// The version tells the write's place: completions come in the order of the calls.
	gate_pass(the_gate, rc, rc == ZOK && st->version != (int)(long)data);
}
static void on_data(int rc, const char *value, int len, const struct Stat *st, const void *data) {
	gate_pass(the_gate, rc, rc == ZOK && (st->version != (int)(long)data || atoi(value) != st->version || len < 1));
}
static void on_string(int rc, const char *value, const void *data) {
	snprintf(((gate *)data)->text, 256, "%s", value ? value : "");
	gate_pass((gate *)data, rc, 0);
}
static void on_strings(int rc, const struct String_vector *v, const struct Stat *st, const void *data) {
	gate_pass((gate *)data, rc, rc == ZOK && v->count != st->numChildren);
}
static void on_acl(int rc, struct ACL_vector *acl, struct Stat *st, const void *data) {
	gate_pass((gate *)data, rc, rc == ZOK && (acl->count != 1 || acl->data[0].perms != ZOO_PERM_ALL || st->aversion != 0));
}

static int async_calls(void) {
	client *c = connect_client();
	gate g;
	gate_init(&g);
	the_gate = &g;
	RC(ZOK, zoo_acreate(c->zh, p(""), "0", 1, &ZOO_OPEN_ACL_UNSAFE, 0, on_string, &g));
	for (int i = 1; i <= 300; i++) {
		char v[16];
		int n = snprintf(v, sizeof v, "%d", i);
		RC(ZOK, zoo_aset(c->zh, p(""), v, n, -1, on_stat, (void *)(long)i));
		RC(ZOK, zoo_aget(c->zh, p(""), 0, on_data, (void *)(long)i));
	}
	RC(ZOK, zoo_aget_children2(c->zh, p(""), 0, on_strings, &g));
	RC(ZOK, zoo_aget_acl(c->zh, p(""), on_acl, &g));
	RC(ZOK, zoo_async(c->zh, p(""), on_string, &g));
	RC(ZOK, zoo_aexists(c->zh, p(""), 0, on_stat, (void *)300L));
	zoo_op_t op;
	zoo_op_result_t result;
	zoo_delete_op_init(&op, p(""), 300);
	RC(ZOK, zoo_amulti(c->zh, 1, &op, &result, on_void, &g));
	DO(gate_wait(&g, 606));
	RC(ZOK, g.rc);
	CHECK(g.wrong == 0);
	return 0;
}

static int acls_and_auth(void) {
	client *c = connect_client(), *other = connect_client();
	gate g;
	gate_init(&g);
	RC(ZOK, zoo_add_auth(c->zh, "digest", "joe:secret", 10, on_void, &g));
	DO(gate_wait(&g, 1));
	RC(ZOK, g.rc);
	RC(ZOK, zoo_create(c->zh, p(""), "mine", 4, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
	char data[16];
	struct Stat st;
	int len = sizeof data;
	gate_init(&g);
	RC(ZOK, zoo_async(other->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	RC(ZNOAUTH, zoo_get(other->zh, p(""), 0, data, &len, &st));
	RC(ZNOAUTH, zoo_set(other->zh, p(""), "x", 1, -1));
	RC(ZNOAUTH, make(other, p("/kid")));
	struct ACL_vector acl;
	RC(ZOK, zoo_get_acl(c->zh, p(""), &acl, &st));
	CHECK(acl.count == 1 && strcmp(acl.data[0].id.scheme, "digest") == 0 && strncmp(acl.data[0].id.id, "joe:", 4) == 0);
	deallocate_ACL_vector(&acl);
	struct ACL both[] = {{ZOO_PERM_ALL, {"auth", ""}}, {ZOO_PERM_READ, {"world", "anyone"}}};
	struct ACL_vector readable = {2, both};
	RC(ZOK, zoo_set_acl(c->zh, p(""), 0, &readable));
	gate_init(&g);
	RC(ZOK, zoo_async(other->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	len = sizeof data;
	RC(ZOK, zoo_get(other->zh, p(""), 0, data, &len, &st));
	CHECK(len == 4 && st.aversion == 1);
	RC(ZBADVERSION, zoo_set_acl(c->zh, p(""), 0, &ZOO_OPEN_ACL_UNSAFE));
	struct ACL bad = {ZOO_PERM_ALL, {"nosuch", "x"}};
	struct ACL_vector bads = {1, &bad};
	RC(ZINVALIDACL, zoo_set_acl(c->zh, p(""), -1, &bads));
	RC(ZINVALIDACL, zoo_create(other->zh, p("-2"), "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
	return 0;
}

static int unknown_scheme_is_refused(void) {
	client *c = connect_client();
	gate g;
	gate_init(&g);
	zoo_add_auth(c->zh, "nosuch", "x", 1, on_void, &g);
	DO(gate_wait(&g, 1));
	RC(ZAUTHFAILED, g.rc);
	return await_state(c, ZOO_AUTH_FAILED_STATE, 0);
}

// --- watches

static int one_shot_watches(void) {
	client *w = connect_client(), *c = connect_client();
	struct Stat st;
	struct String_vector v;
	char data[16];
	int len = sizeof data;
	RC(ZOK, make(w, p("")));
	RC(ZNONODE, zoo_wexists(w->zh, p("/a"), watcher, w, &st));
	RC(ZOK, zoo_wget_children(w->zh, p(""), watcher, w, &v));
	deallocate_String_vector(&v);
	gate g;
	gate_init(&g);
	RC(ZOK, zoo_async(c->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	RC(ZOK, make(c, p("/a")));
	DO(await_events(w, 2));
	CHECK(saw(w, 0, ZOO_CREATED_EVENT, p("/a")) && saw(w, 0, ZOO_CHILD_EVENT, p("")));
	RC(ZOK, zoo_wget(w->zh, p("/a"), watcher, w, data, &len, &st));
	RC(ZOK, zoo_set(c->zh, p("/a"), "x", 1, -1));
	DO(await_events(w, 3));
	CHECK(saw(w, 2, ZOO_CHANGED_EVENT, p("/a")));
	RC(ZOK, zoo_set(c->zh, p("/a"), "y", 1, -1)); // no watch is left
	RC(ZOK, zoo_wget_children(w->zh, p("/a"), watcher, w, &v));
	deallocate_String_vector(&v);
	RC(ZOK, zoo_delete(c->zh, p("/a"), -1));
	DO(await_events(w, 4));
	CHECK(saw(w, 3, ZOO_DELETED_EVENT, p("/a")) && w->n == 4);
	return 0;
}

static int remove_watches(void) {
	client *w = connect_client(), *c = connect_client();
	struct Stat st;
	RC(ZOK, make(w, p("")));
	RC(ZOK, zoo_wexists(w->zh, p(""), watcher, w, &st));
	RC(ZOK, zoo_remove_watches(w->zh, p(""), ZWATCHTYPE_DATA, watcher, w, 0));
	RC(ZNOWATCHER, zoo_remove_watches(w->zh, p(""), ZWATCHTYPE_DATA, watcher, w, 0));
	RC(ZOK, zoo_wexists(w->zh, p(""), watcher, w, &st));
	RC(ZOK, zoo_remove_all_watches(w->zh, p(""), ZWATCHTYPE_ANY, 0));
	int before = w->n;
	gate g;
	gate_init(&g);
	RC(ZOK, zoo_async(c->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	RC(ZOK, zoo_set(c->zh, p(""), "x", 1, -1));
	RC(ZOK, zoo_set(w->zh, p(""), "y", 1, -1)); // an event would come before this answer
	CHECK(!saw(w, before, ZOO_CHANGED_EVENT, p("")));
	return 0;
}

static int writer_hears_before_its_answer(void) {
	client *c = connect_client();
	struct Stat st;
	RC(ZOK, make(c, p("")));
	for (int i = 0; i < 50; i++) {
		RC(ZOK, zoo_wexists(c->zh, p(""), watcher, c, &st));
		RC(ZOK, zoo_set(c->zh, p(""), "x", 1, -1));
		DO(await_events(c, i + 1));
	}
	return 0;
}

// --- sessions

static int close_ends_ephemerals(void) {
	client *c = connect_client(), *w = connect_client();
	struct Stat st;
	RC(ZOK, make(c, p("")));
	RC(ZOK, zoo_create(c->zh, p("/e"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
	gate g;
	gate_init(&g);
	RC(ZOK, zoo_async(w->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	RC(ZOK, zoo_wexists(w->zh, p("/e"), watcher, w, &st));
	shut(c);
	DO(await_events(w, 1));
	CHECK(saw(w, 0, ZOO_DELETED_EVENT, p("/e")));
	return 0;
}

// orphan leaves a session and its ephemeral behind whose client was killed.
static int orphan(const char *path, int timeout, clientid_t *id) {
	int fds[2];
	CHECK(pipe(fds) == 0);
	fflush(stdout);
	char ms[16];
	snprintf(ms, sizeof ms, "%d", timeout);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fds[1], 3);
		execl("/proc/self/exe", "suite", hosts, "--orphan", path, ms, (char *)NULL);
		_exit(1);
	}
	close(fds[1]);
	ssize_t n = read(fds[0], id, sizeof *id);
	close(fds[0]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	CHECK(n == sizeof *id);
	return 0;
}

static int be_orphan(const char *path, int timeout) {
	client *c = open_with(timeout, NULL);
	if (await_state(c, ZOO_CONNECTED_STATE, 1) != 0) return 1;
	if (zoo_create(c->zh, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0) != ZOK) return 1;
	const clientid_t *id = zoo_client_id(c->zh);
	if (write(3, id, sizeof *id) != sizeof *id) return 1;
	for (;;) pause();
}

static int session_is_taken_over(void) {
	client *w = connect_client();
	clientid_t id;
	struct Stat st;
	RC(ZOK, make(w, p("")));
	DO(orphan(p("/e"), 10000, &id));
	client *heir = open_with(10000, &id);
	DO(await_state(heir, ZOO_CONNECTED_STATE, 1));
	CHECK(zoo_client_id(heir->zh)->client_id == id.client_id);
	gate g;
	gate_init(&g);
	RC(ZOK, zoo_async(heir->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	RC(ZOK, zoo_exists(heir->zh, p("/e"), 0, &st));
	CHECK(st.ephemeralOwner == id.client_id);
	return 0;
}

static int wrong_password_expires_the_client_only(void) {
	client *w = connect_client();
	clientid_t id;
	struct Stat st;
	RC(ZOK, make(w, p("")));
	DO(orphan(p("/e"), 10000, &id));
	memset(id.passwd, 'x', sizeof id.passwd);
	client *thief = open_with(10000, &id);
	DO(await_state(thief, ZOO_EXPIRED_SESSION_STATE, 0));
	gate g;
	gate_init(&g);
	RC(ZOK, zoo_async(w->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	RC(ZOK, zoo_exists(w->zh, p("/e"), 0, &st));
	return 0;
}

static int dead_client_expires(void) {
	client *w = connect_client();
	clientid_t id;
	struct Stat st;
	RC(ZOK, make(w, p("")));
	DO(orphan(p("/e"), 2000, &id));
	gate g;
	gate_init(&g);
	RC(ZOK, zoo_async(w->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	RC(ZOK, zoo_wexists(w->zh, p("/e"), watcher, w, &st));
	DO(await_events(w, 1));
	CHECK(saw(w, 0, ZOO_DELETED_EVENT, p("/e")));
	client *late = open_with(2000, &id);
	return await_state(late, ZOO_EXPIRED_SESSION_STATE, 0);
}

// --- threads

typedef struct {
	client *c;
	int wrong;
} worker;

static void *count(void *arg) {
	worker *w = arg;
	for (int i = 0; i < 25;) {
		char data[32] = {0}, next[32];
		int len = sizeof data - 1;
		struct Stat st;
		if (zoo_get(w->c->zh, p(""), 0, data, &len, &st) != ZOK) {
			w->wrong++;
			return NULL;
		}
		int n = snprintf(next, sizeof next, "%d", atoi(data) + 1);
		int rc = zoo_set(w->c->zh, p(""), next, n, st.version);
		if (rc == ZOK) i++;
		else if (rc != ZBADVERSION) w->wrong++, i++;
	}
	return NULL;
}

static int counting_from_many_threads(void) {
	client *a = connect_client(), *b = connect_client();
	RC(ZOK, zoo_create(a->zh, p(""), "0", 1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
	gate g;
	gate_init(&g);
	RC(ZOK, zoo_async(b->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	pthread_t threads[8];
	worker workers[8];
	for (int i = 0; i < 8; i++) {
		workers[i] = (worker){i % 2 ? a : b, 0};
		pthread_create(&threads[i], NULL, count, &workers[i]);
	}
	for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
	for (int i = 0; i < 8; i++) CHECK(workers[i].wrong == 0);
	char data[32] = {0};
	int len = sizeof data - 1;
	struct Stat st;
	gate_init(&g);
	RC(ZOK, zoo_async(a->zh, p(""), on_string, &g));
	DO(gate_wait(&g, 1));
	RC(ZOK, zoo_get(a->zh, p(""), 0, data, &len, &st));
	CHECK(atoi(data) == 200 && st.version == 200);
	return 0;
}

// --- the kill of a leader

static void server_of(client *c, char *text, size_t size) {
	struct sockaddr_storage a;
	socklen_t len = sizeof a;
	char host[64] = "";
	text[0] = 0;
	if (!zookeeper_get_connected_host(c->zh, (struct sockaddr *)&a, &len)) return;
	struct sockaddr_in *in = (struct sockaddr_in *)&a;
	inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
	snprintf(text, size, "%s:%d", host, ntohs(in->sin_port));
}

// settle syncs until the client has come through a change of servers.
static int settle(client *c) {
	for (time_t end = time(NULL) + bound;;) {
		gate g;
		gate_init(&g);
		if (zoo_async(c->zh, p(""), on_string, &g) == ZOK) {
			DO(gate_wait(&g, 1));
			if (g.rc == ZOK) return 0;
			if (g.rc != ZCONNECTIONLOSS && g.rc != ZOPERATIONTIMEOUT) FAIL("sync: %s", zerror(g.rc));
		}
		if (time(NULL) > end) FAIL("no server answers");
		nanosleep(&(struct timespec){0, 20000000}, NULL);
	}
}

static int leader_kill(void) {
	char leader[64], answer[64], at[64];
	DO(ask("leader", leader, sizeof leader));
	client *cs[2] = {NULL, NULL};
	for (int i = 0; i < 50 && !(cs[0] && cs[1]); i++) {
		client *c = connect_client();
		server_of(c, at, sizeof at);
		int k = strcmp(at, leader) != 0;
		if (cs[k]) shut(c);
		else cs[k] = c;
	}
	CHECK(cs[0] && cs[1]);
	char kids[2][256], gets[2][256], news[2][256], ephs[2][256];
	int64_t ids[2];
	RC(ZOK, make(cs[0], p("")));
	for (int k = 0; k < 2; k++) {
		client *c = cs[k];
		DO(settle(c));
		snprintf(kids[k], 256, "%s/kids%d", base, k);
		snprintf(gets[k], 256, "%s/get%d", base, k);
		snprintf(news[k], 256, "%s/new%d", base, k);
		snprintf(ephs[k], 256, "%s/e%d", base, k);
		RC(ZOK, make(c, kids[k]));
		RC(ZOK, make(c, gets[k]));
		RC(ZOK, zoo_create(c->zh, ephs[k], "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
		char data[8];
		int len = sizeof data;
		struct Stat st;
		struct String_vector v;
		RC(ZOK, zoo_wget(c->zh, gets[k], watcher, c, data, &len, &st));
		RC(ZNONODE, zoo_wexists(c->zh, news[k], watcher, c, &st));
		RC(ZOK, zoo_wget_children(c->zh, kids[k], watcher, c, &v));
		deallocate_String_vector(&v);
		ids[k] = zoo_client_id(c->zh)->client_id;
	}
	DO(ask("kill leader", answer, sizeof answer));
	for (int k = 0; k < 2; k++) {
		DO(settle(cs[k]));
		struct Stat st;
		RC(ZOK, zoo_exists(cs[k]->zh, ephs[k], 0, &st));
		CHECK(st.ephemeralOwner == ids[k] && zoo_client_id(cs[k]->zh)->client_id == ids[k]);
		CHECK(cs[k]->n == 0);
	}
	DO(await_state(cs[0], ZOO_CONNECTED_STATE, 2));
	server_of(cs[0], at, sizeof at);
	CHECK(strcmp(at, leader) != 0);
	client *w = connect_client();
	DO(settle(w));
	for (int k = 0; k < 2; k++) {
		char kid[300];
		snprintf(kid, sizeof kid, "%s/x", kids[k]);
		RC(ZOK, zoo_set(w->zh, gets[k], "x", 1, -1));
		RC(ZOK, make(w, news[k]));
		RC(ZOK, make(w, kid));
		DO(await_events(cs[k], 3));
		CHECK(saw(cs[k], 0, ZOO_CHANGED_EVENT, gets[k]) && saw(cs[k], 0, ZOO_CREATED_EVENT, news[k]) && saw(cs[k], 0, ZOO_CHILD_EVENT, kids[k]));
	}
	return ask("restart", answer, sizeof answer);
}

static const struct {
	const char *name;
	int (*run)(void);
} cases[] = {
#define CASE(f) {#f, f}
	CASE(create_get_set_delete), CASE(null_and_empty_data), CASE(create_modes), CASE(children), CASE(multi), CASE(async_calls),
	CASE(acls_and_auth), CASE(unknown_scheme_is_refused), CASE(one_shot_watches), CASE(remove_watches),
	CASE(writer_hears_before_its_answer), CASE(close_ends_ephemerals), CASE(session_is_taken_over),
	CASE(wrong_password_expires_the_client_only), CASE(dead_client_expires), CASE(counting_from_many_threads), CASE(leader_kill),
};

int main(int argc, char **argv) {
	if (argc < 2) return 2;
	hosts = argv[1];
	zoo_set_debug_level((ZooLogLevel)0); // it tells every refused connection
	if (argc == 5 && strcmp(argv[2], "--orphan") == 0) return be_orphan(argv[3], atoi(argv[4]));
	printf("client C-client %s\n", ZOO_VERSION);
	srand48(time(NULL) ^ getpid());
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct timespec began, ended;
		clock_gettime(CLOCK_MONOTONIC, &began);
		snprintf(base, sizeof base, "/c-%s-%08lx", cases[i].name, lrand48());
		if (cases[i].run() == 0) {
			printf("ok %s\n", cases[i].name);
		} else {
			char answer[256];
			printf("FAIL %s %s\n", cases[i].name, reason);
			ask("restart", answer, sizeof answer);
		}
		fflush(stdout);
		close_all();
		clock_gettime(CLOCK_MONOTONIC, &ended);
		fprintf(stderr, "%s: %.2f s\n", cases[i].name, (ended.tv_sec - began.tv_sec) + (ended.tv_nsec - began.tv_nsec) / 1e9);
	}
	return 0;
}
