// SPDX-License-Identifier: Apache-2.0

// node-zookeeper-client; see ../doc.go for how a suite talks to its test. NODE_PATH says where it is installed.

'use strict';

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const readline = require('node:readline');
const zookeeper = require('node-zookeeper-client');
const { version } = require('node-zookeeper-client/package.json');

const [hosts, ...only] = process.argv.slice(2);
const bound = 30_000; // milliseconds that a wait may take before the case has failed
const { ACL, CreateMode, Exception, Id, Permission } = zookeeper;

const say = (...words) => console.log(words.join(' ').replaceAll('\n', ' '));
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function ask(request) {
  say('ask', request);
  const { value } = await answers.next();
  assert.ok(value !== undefined && !value.startsWith('error'), value);
  return value;
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), bound);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function until(condition, what) {
  for (const end = Date.now() + bound; !(await condition()); await new Promise((r) => setTimeout(r, 10))) {
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
  }
}

// Client gives promises instead of callbacks, and the events of watches in order.
class Client {
  constructor(connect, options) {
    this.zk = zookeeper.createClient(connect, { sessionTimeout: 10_000, spinDelay: 50, retries: 10, ...options });
    for (const f of ['create', 'exists', 'getData', 'setData', 'getChildren', 'remove', 'getACL', 'setACL', 'mkdirp', 'removeRecursive']) {
      this[f] = (...args) => within(new Promise((resolve, reject) => {
        this.zk[f](...args, (error, ...results) => (error ? reject(error) : resolve(results.length > 1 ? results : results[0])));
      }), f);
    }
    this.events = [];
    this.watch = (e) => this.events.push(`${e.getName()} ${e.getPath()}`);
  }

  connected() {
    const done = within(new Promise((resolve) => this.zk.once('connected', resolve)), 'a connection');
    this.zk.connect();
    return done;
  }

  heard(...want) {
    return until(() => this.events.length >= want.length, want.join()).then(() => {
      assert.deepEqual(this.events.splice(0).sort(), want.sort());
    });
  }

  commit(t) {
    return within(new Promise((resolve) => t.commit((error, results) => resolve([error, results]))), 'commit');
  }

  server() {
    const s = this.zk.connectionManager.socket;
    return `${s.remoteAddress}:${s.remotePort}`;
  }
}

let opened = [];

async function open(options, connect = hosts) {
  const c = new Client(connect, options);
  opened.push(c);
  await c.connected();
  return c;
}

const failsWith = (code, promise) => assert.rejects(promise, (e) => e.getCode && e.getCode() === code);

const cases = {
  async create_get_set_delete(base) {
    const c = await open();
    assert.equal(await c.create(base, Buffer.from('one')), base);
    let [data, stat] = await c.getData(base);
    assert.equal(data.toString(), 'one');
    assert.equal(stat.version, 0);
    assert.deepEqual(stat.czxid, stat.mzxid);
    stat = await c.setData(base, Buffer.from('two'), 0);
    assert.equal(stat.version, 1);
    await failsWith(Exception.BAD_VERSION, c.setData(base, Buffer.from('x'), 7));
    await failsWith(Exception.NODE_EXISTS, c.create(base));
    await failsWith(Exception.NO_NODE, c.create(`${base}/a/b`));
    await c.create(`${base}/kid`);
    await failsWith(Exception.NOT_EMPTY, c.remove(base, -1));
    await c.remove(`${base}/kid`, 0);
    await c.remove(base, 1);
    assert.equal(await c.exists(base), null);
  },

  async create_modes(base) {
    const c = await open();
    await c.create(base);
    assert.equal(await c.create(`${base}/s-`, CreateMode.PERSISTENT_SEQUENTIAL), `${base}/s-0000000000`);
    assert.equal(await c.create(`${base}/e-`, CreateMode.EPHEMERAL_SEQUENTIAL), `${base}/e-0000000001`);
    const stat = await c.exists(`${base}/e-0000000001`);
    assert.deepEqual(stat.ephemeralOwner, c.zk.getSessionId());
    await failsWith(Exception.NO_CHILDREN_FOR_EPHEMERALS, c.create(`${base}/e-0000000001/x`));
  },

  async paths_and_children(base) {
    const c = await open();
    await c.mkdirp(`${base}/a/b/c`);
    for (let i = 0; i < 30; i++) await c.create(`${base}/a/n${i}`);
    const [names, stat] = await c.getChildren(`${base}/a`);
    assert.equal(names.length, 31);
    assert.equal(stat.numChildren, 31);
    // Its removeRecursive sends parents and children at once, in no order, so that it fails for two levels or more.
    await c.removeRecursive(`${base}/a/b/c`, -1);
    assert.equal(await c.exists(`${base}/a/b/c`), null);
  },

  async pipelining_keeps_order(base) {
    const c = await open();
    await c.create(base);
    const pending = [];
    for (let i = 1; i <= 300; i++) {
      pending.push(c.setData(base, Buffer.from(String(i)), -1), c.getData(base));
    }
    const results = await Promise.all(pending);
    for (let i = 1; i <= 300; i++) {
      assert.equal(results[2 * i - 2].version, i);
      assert.equal(results[2 * i - 1][0].toString(), String(i));
    }
  },

  async large_data(base) {
    const c = await open();
    const data = randomBytes(1_000_000);
    await c.create(base, data);
    assert.ok((await c.getData(base))[0].equals(data));
  },

  async transactions(base) {
    const c = await open();
    let [error, results] = await c.commit(c.zk.transaction()
      .create(base, Buffer.from('1')).create(`${base}/s-`, CreateMode.PERSISTENT_SEQUENTIAL)
      .setData(base, Buffer.from('2')).check(base, 1).create(`${base}/x`).remove(`${base}/x`));
    assert.ok(!error, String(error));
    assert.equal(results[1].path, `${base}/s-0000000000`);
    assert.equal(results[2].stat.version, 1);
    [error, results] = await c.commit(c.zk.transaction().create(`${base}/y`).check(base, 7).remove(base));
    assert.equal(error.getCode(), Exception.BAD_VERSION);
    assert.deepEqual(results.map((r) => r.err), [0, Exception.BAD_VERSION, Exception.RUNTIME_INCONSISTENCY]);
    assert.equal(await c.exists(`${base}/y`), null);
  },

  async acls_and_auth(base) {
    const c = await open(), other = await open();
    c.zk.addAuthInfo('digest', Buffer.from('joe:secret'));
    await c.create(base, Buffer.from('mine'), ACL.CREATOR_ALL_ACL);
    await until(async () => {
      try {
        await other.getData(base);
        return true;
      } catch (e) {
        if (e.getCode() === Exception.NO_NODE) return false;
        assert.equal(e.getCode(), Exception.NO_AUTH);
        return true;
      }
    }, 'the znode');
    await failsWith(Exception.NO_AUTH, other.getData(base));
    await failsWith(Exception.NO_AUTH, other.setData(base, Buffer.from('x'), -1));
    const [acls, stat] = await c.getACL(base);
    assert.equal(acls.length, 1);
    assert.equal(acls[0].id.scheme, 'digest');
    assert.equal(stat.aversion, 0);
    const both = [acls[0], new ACL(Permission.READ, new Id('world', 'anyone'))];
    await c.setACL(base, both, 0);
    await until(async () => other.getData(base).then(([data]) => data.toString() === 'mine', () => false), 'the permission');
    await failsWith(Exception.BAD_VERSION, c.setACL(base, both, 7));
  },

  async chroot(base) {
    const c = await open();
    await c.create(base);
    const inside = await open({}, hosts + base);
    await until(async () => (await inside.exists('/')) !== null, 'the root');
    await inside.create('/x', Buffer.from('in'));
    await until(async () => (await c.exists(`${base}/x`)) !== null, 'the znode');
    await inside.getData('/x', inside.watch);
    await c.setData(`${base}/x`, Buffer.from('changed'), -1);
    await inside.heard('NODE_DATA_CHANGED /x');
  },

  async one_shot_watches(base) {
    const c = await open(), w = await open();
    await c.create(base);
    await until(async () => (await w.exists(base)) !== null, 'the znode');
    assert.equal(await w.exists(`${base}/a`, w.watch), null);
    await w.getChildren(base, w.watch);
    await c.create(`${base}/a`);
    await w.heard(`NODE_CREATED ${base}/a`, `NODE_CHILDREN_CHANGED ${base}`);
    await w.getData(`${base}/a`, w.watch);
    await c.setData(`${base}/a`, Buffer.from('x'), -1);
    await w.heard(`NODE_DATA_CHANGED ${base}/a`);
    await w.getChildren(`${base}/a`, w.watch);
    await c.remove(`${base}/a`, -1);
    await w.heard(`NODE_DELETED ${base}/a`);
  },

  async writer_hears_before_its_answer(base) {
    const c = await open();
    await c.create(base);
    for (let i = 0; i < 50; i++) {
      await c.exists(base, c.watch);
      await c.setData(base, Buffer.from('x'), -1);
      assert.deepEqual(c.events.splice(0), [`NODE_DATA_CHANGED ${base}`]);
    }
  },

  async close_ends_ephemerals(base) {
    const c = await open(), w = await open();
    await c.create(base, CreateMode.EPHEMERAL);
    await until(async () => (await w.exists(base)) !== null, 'the ephemeral');
    await w.exists(base, w.watch);
    c.zk.close();
    await w.heard(`NODE_DELETED ${base}`);
  },

  async session_is_expired_by_another(base) {
    const c = await open();
    await c.create(base, CreateMode.EPHEMERAL);
    const id = c.zk.getSessionId(), password = c.zk.getSessionPassword();
    let expired = false;
    c.zk.once('expired', () => { expired = true; });
    // The two take the session from each other until the other one could close it.
    await until(async () => {
      const thief = new Client(hosts, { sessionId: id, sessionPassword: password });
      const done = within(new Promise((resolve) => ['disconnected', 'expired'].forEach((e) => thief.zk.once(e, resolve))), 'the end');
      thief.zk.once('connected', () => thief.zk.close());
      thief.zk.connect();
      await done;
      return expired;
    }, 'the expiry');
  },

  async leader_kill(base) {
    const leader = await ask('leader');
    let at, elsewhere;
    for (let i = 0; i < 50 && !(at && elsewhere); i++) {
      const c = await open();
      if (c.server() === leader) at ??= c;
      else elsewhere ??= c;
    }
    assert.ok(at && elsewhere);
    const both = [at, elsewhere];
    await at.create(base);
    await until(async () => (await elsewhere.exists(base)) !== null, 'the znode');
    for (const [i, c] of both.entries()) {
      const p = `${base}/${i}`;
      await c.create(p);
      await c.create(`${p}/get`);
      await c.create(`${p}/kids`);
      await c.create(`${p}/e`, CreateMode.EPHEMERAL);
      await c.getData(`${p}/get`, c.watch);
      await c.exists(`${p}/new`, c.watch);
      await c.getChildren(`${p}/kids`, c.watch);
    }
    const ids = both.map((c) => c.zk.getSessionId());
    const moved = within(new Promise((resolve) => at.zk.once('connected', resolve)), 'the new connection');
    await ask('kill leader');
    await moved;
    assert.notEqual(at.server(), leader);
    for (const [i, c] of both.entries()) {
      await c.setData(`${base}/${i}`, Buffer.from('alive'), -1);
      assert.deepEqual(c.zk.getSessionId(), ids[i]);
      assert.deepEqual((await c.exists(`${base}/${i}/e`)).ephemeralOwner, ids[i]);
      assert.deepEqual(c.events, []);
    }
    const other = await open();
    for (const [i, c] of both.entries()) {
      const p = `${base}/${i}`;
      await until(async () => (await other.exists(`${p}/get`)) !== null, 'the znode');
      await other.setData(`${p}/get`, Buffer.from('x'), -1);
      await other.create(`${p}/new`);
      await other.create(`${p}/kids/x`);
      await c.heard(`NODE_DATA_CHANGED ${p}/get`, `NODE_CREATED ${p}/new`, `NODE_CHILDREN_CHANGED ${p}/kids`);
    }
    await ask('restart');
  },
};

async function main() {
  say('client node-zookeeper-client', version);
  for (const [name, run] of Object.entries(cases)) {
    if (only.length > 0 && !only.includes(name)) continue;
    const began = performance.now();
    try {
      await run(`/node-${name}-${randomBytes(4).toString('hex')}`);
      say('ok', name);
    } catch (e) {
      console.error(e);
      say('FAIL', name, String(e));
      await ask('restart');
    }
    for (const c of opened) c.zk.close();
    opened = [];
    console.error(`${name}: ${((performance.now() - began) / 1000).toFixed(2)} s`);
  }
  process.exit(0);
}

main();
