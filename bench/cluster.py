"""The comparison of clusters: `compare.py --nodes 3`.

Scenarios: kv2-read-leader, kv2-read-standby, kv2-write-leader, kv2-write-standby (forwarded), kv2-write-1conn (at the
leader), fresh-reads (reads at a standby right after a write at the leader: how many show the old value), kill (of the
leader by signal 9) and step-down: the longest time without a successful write at any node, from the kill or the request
until another node leads and a write succeeds.

The CPU is that of all nodes. Every node has an audit log of its own.
"""
import http.client, json, statistics, sys, threading, time, urllib.error

from compare import Server, lua_kv_read, lua_kv_write, prep_kv, wrk

# name: (at the leader, lua, connections)
LOADS = {
    "kv2-read-leader": (True, lua_kv_read("kvb2/data/"), 16),
    "kv2-read-standby": (False, lua_kv_read("kvb2/data/"), 16),
    "kv2-write-leader": (True, lua_kv_write("kvb2/data/", True), 32),
    "kv2-write-standby": (False, lua_kv_write("kvb2/data/", True), 32),
    "kv2-write-1conn": (True, lua_kv_write("kvb2/data/", True), 1),
}
SCENARIOS = [*LOADS, "fresh-reads", "kill", "step-down"]
PATIENCE = 120  # seconds until a cluster is whole, or another node leads
POLL = 0.02
FAILURES = (OSError, http.client.HTTPException)  # an HTTP error is an OSError


def wait_for(what, condition):
    """Returns the first true value of a condition, which may fail as a server that starts does."""
    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until:
        try:
            if value := condition():
                return value
        except FAILURES:
            pass
        time.sleep(POLL)
    sys.exit(f"{what}: not within {PATIENCE} s")


class Cluster:
    """Nodes of one server that have joined."""

    def __init__(self, name, binary, count, audit, cpu, tls):
        self.name = name
        self.nodes = [Server(name, binary, audit=audit, cpu=cpu, tls=tls, node_id=f"n{n + 1}") for n in range(count)]
        first, *others = self.nodes
        first.init()
        begun = time.perf_counter()
        for node in others:
            node.key, node.token = first.key, first.token
            certificate = {"leader_ca_cert": open(f"{first.dir}/tls.crt").read()} if tls else {}
            node.call("POST", "sys/storage/raft/join", {"leader_api_addr": first.addr, **certificate}, token=None)
            self.unseal(node)
        wait_for(f"{name}: {count} voters", self.is_whole)
        self.whole_s = time.perf_counter() - begun

    def unseal(self, node):
        """Unseals a node that is a member, and waits until it serves."""
        def sent():
            node.call("PUT", "sys/unseal", {"key": node.key}, token=None)
            return True
        wait_for(f"{self.name}: unseal", sent)
        wait_for(f"{self.name}: a node that serves", lambda: node.call("GET", "auth/token/lookup-self"))

    def is_whole(self):
        """Whether every node votes and knows the same leader."""
        members = self.nodes[0].call("GET", "sys/storage/raft/configuration")["data"]["config"]["servers"]
        leaders = {node.call("GET", "sys/leader", token=None).get("leader_address") for node in self.nodes}
        return sum(member["voter"] for member in members) == len(self.nodes) and len(leaders) == 1 and leaders.pop()

    def leader(self):
        def found():
            return next((n for n in self.nodes if n.call("GET", "sys/leader", token=None)["is_self"]), None)
        return wait_for(f"{self.name}: a leader", found)

    def standby(self):
        leader = self.leader()
        return next(node for node in self.nodes if node is not leader)

    def stop(self):
        for node in self.nodes:
            node.stop()


class Writer(threading.Thread):
    """Writes at one node until it is stopped, and notes when each successful write began and ended."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.stopped, self.done = node, threading.Event(), []

    def run(self):
        while not self.stopped.is_set():
            begun = time.perf_counter()
            try:
                self.node.call("POST", f"kvb2/data/app/outage-{self.node.port}", {"data": {"k": "v"}}, timeout=1)
                self.done.append((begun, time.perf_counter()))
            except FAILURES:
                time.sleep(0.005)


def outage(cluster, action):
    """The longest time without a successful write at any node while another node becomes the leader, in seconds."""
    before = cluster.leader()
    others = [node for node in cluster.nodes if node is not before]
    writers = [Writer(node) for node in cluster.nodes]
    for writer in writers:
        writer.start()
    wait_for(f"{cluster.name}: writes", lambda: all(writer.done for writer in writers))
    acted = time.perf_counter()
    action(before)
    wait_for(f"{cluster.name}: another leader", lambda: any(n.call("GET", "sys/leader", token=None)["is_self"] for n in others))
    led = time.perf_counter()
    wait_for(f"{cluster.name}: a write", lambda: any(begun > led for writer in writers for begun, _ in list(writer.done)))
    for writer in writers:
        writer.stopped.set()
    for writer in writers:
        writer.join()
    times = [acted, *sorted(ended for writer in writers for _, ended in writer.done if ended > acted)]
    return max(later - earlier for earlier, later in zip(times, times[1:]))


def kill(cluster):
    """Kills the leader, and starts it again once another one has taken writes."""
    killed = []

    def action(leader):
        leader.proc.kill()
        leader.proc.wait()
        killed.append(leader)

    seconds = outage(cluster, action)
    for node in killed:
        node.log.close()
        node.start()
        cluster.unseal(node)
    wait_for(f"{cluster.name}: a whole cluster", cluster.is_whole)
    return seconds


def step_down(cluster):
    seconds = outage(cluster, lambda leader: leader.call("PUT", "sys/step-down"))
    wait_for(f"{cluster.name}: a whole cluster", cluster.is_whole)
    return seconds


def fresh_reads(cluster, count):
    """How many of these reads at a standby show an old value right after the write at the leader was acknowledged, and
    how many failed."""
    leader, standby = cluster.leader(), cluster.standby()
    stale = failed = 0
    path = "kvb2/data/app/fresh"
    for n in range(count):
        leader.call("POST", path, {"data": {"n": n}})
        try:
            stale += standby.call("GET", path)["data"]["data"]["n"] != n
        except urllib.error.HTTPError:
            failed += 1
    return {"reads": count, "stale": stale, "failed": failed}


def loads(clusters, scenario, a):
    """The rounds of a load, alternating between the clusters."""
    at_leader, lua, connections = LOADS[scenario]
    rounds = {cluster.name: [] for cluster in clusters}
    for _ in range(a.rounds):
        for cluster in clusters:
            node = cluster.leader() if at_leader else cluster.standby()
            rounds[cluster.name].append(wrk(node, lua, cluster.context, a.connections or connections, a.seconds, a.load_cores, cluster.nodes))
    reference = None
    out = {}
    for name, measured in rounds.items():
        median = {key: statistics.median(r[key] for r in measured) for key in measured[0]}
        reference = reference or median
        print(f"{scenario:20}{name:12}{median['rps']:9.0f} req/s {median['cpu_us']:9.1f} us/req of all nodes  p50 {median['p50_ms']:7.2f} ms  "
              f"p99 {median['p99_ms']:7.2f} ms  non-2xx {median['bad']:5.0f}  x req/s {median['rps'] / reference['rps']:6.2f}  "
              f"x cpu {reference['cpu_us'] / max(median['cpu_us'], 1e-9):6.2f}", flush=True)
        out[name] = median
    return out


def outages(clusters, scenario, a):
    """The outages of kills or step-downs."""
    act = kill if scenario == "kill" else step_down
    seconds = {cluster.name: [] for cluster in clusters}
    for _ in range(a.failovers):
        for cluster in clusters:
            seconds[cluster.name].append(act(cluster))
    out = {}
    for name, measured in seconds.items():
        measured.sort()
        p99 = measured[min(len(measured) - 1, int(len(measured) * 0.99))]
        out[name] = {"p50_s": statistics.median(measured), "p99_s": p99, "all_s": measured}
        print(f"{scenario:20}{name:12} no write for: p50 {out[name]['p50_s']:.2f} s  p99 {p99:.2f} s  of {len(measured)}", flush=True)
    return out


def compare(a):
    """Runs the scenarios with the arguments of compare.py."""
    unknown = set(a.scenario or []) - set(SCENARIOS)
    if unknown:
        sys.exit(f"unknown scenarios: {', '.join(sorted(unknown))}; of a cluster there are {', '.join(SCENARIOS)}")
    clusters, results = [], {}
    cores, a.load_cores = a.server_cores or "0,1", a.load_cores or "0,1"
    try:
        for spec in a.server:
            name, binary = spec.split("=", 1)
            cluster = Cluster(name, binary, a.nodes, not a.no_audit, cores, a.tls)
            clusters.append(cluster)
            print(f"# {name}: {a.nodes} voters {cluster.whole_s:.1f} s after the first node led", flush=True)
            cluster.context = prep_kv(2)(cluster.leader())
        for scenario in a.scenario or SCENARIOS:
            if scenario in LOADS:
                results[scenario] = loads(clusters, scenario, a)
            elif scenario == "fresh-reads":
                results[scenario] = {c.name: fresh_reads(c, a.fresh_reads) for c in clusters}
                for name, counts in results[scenario].items():
                    print(f"{scenario:20}{name:12} {counts['stale']} of {counts['reads']} stale, {counts['failed']} failed", flush=True)
            else:
                results[scenario] = outages(clusters, scenario, a)
        for cluster in clusters:
            results.setdefault("rss_mb", {})[cluster.name] = sizes = [node.rss_mb() for node in cluster.nodes]
            print(f"{'RSS':20}{cluster.name:12} {' '.join(f'{size:.0f}' for size in sizes)} MB", flush=True)
    finally:
        for cluster in clusters:
            cluster.stop()
    if a.json:
        json.dump(results, open(a.json, "w"), indent=1)
