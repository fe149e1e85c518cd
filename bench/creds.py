#!/usr/bin/env python3
"""Dynamic database credentials a second, side by side, on one PostgreSQL.

Both servers get the same role on the same PostgreSQL (Debian's package, started here); wrk asks for credentials,
alternating between the servers round by round. Beside it stands what PostgreSQL itself needs: pg_stat_statements over
each round, and pgbench running the same statements in the same transaction without any server in between, which no
server can pass.

    creds.py --server openbao=/path/to/bao --server keepfast=/path/to/keepfast [--rounds 3] [--seconds 5] [--connections 8]
"""
import argparse
import os
import re
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance", "seed"))
from compare import Server, lua_get, wrk  # noqa: E402
from postgres import Postgres  # noqa: E402

# Rights come from a group: a table's list of rights has room for some hundred users.
CREATE = ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';", "GRANT readers TO \"{{name}}\";"]
POOL = 4


def prepare(server, postgres):
    server.call("POST", "sys/mounts/database", {"type": "database"})
    server.call("POST", "database/config/pg", {
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "max_open_connections": POOL,
        "max_idle_connections": POOL, "username": Postgres.ADMIN, "password": Postgres.PASSWORD,
        "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/myapp?sslmode=disable"})
    server.call("POST", "database/roles/app", {"db_name": "pg", "creation_statements": CREATE, "default_ttl": "4h", "max_ttl": "24h"})
    return {"token": server.token}


def inside(postgres):
    """Milliseconds of execution in PostgreSQL since the last call, and how many roles were made."""
    took, made = postgres.sql(
        "SELECT coalesce(sum(total_exec_time), 0), coalesce(sum(calls) FILTER (WHERE query ILIKE 'create role%'), 0) "
        "FROM pg_stat_statements").split("|")
    postgres.sql("SELECT pg_stat_statements_reset()")
    return float(took), float(made)


def alone(postgres, clients, seconds):
    """Transactions a second of the same statements, sent by pgbench."""
    script = f"{postgres.directory}/creds.sql"
    with open(script, "w") as out:
        out.write("\\set n random(1, 1000000000000)\nBEGIN;\n"
                  "CREATE ROLE \"v-bench-:client_id-:n\" LOGIN PASSWORD 'aB3-0123456789abcdef' VALID UNTIL '2099-01-01 00:00:00+0000';\n"
                  "GRANT readers TO \"v-bench-:client_id-:n\";\nCOMMIT;\n")
    done = subprocess.run(
        [f"{postgres.bin}/pgbench", "-n", "-M", "simple", "-c", str(clients), "-T", str(seconds), "-f", script, "-h", "127.0.0.1",
         "-p", str(postgres.port), "-U", Postgres.ADMIN, "myapp"],
        env={**os.environ, "PGPASSWORD": Postgres.PASSWORD}, capture_output=True, text=True, check=True)
    return float(re.search(r"tps = ([\d.]+)", done.stdout).group(1))


def clean(postgres):
    """Takes the users away again, so that every round begins with few."""
    names = postgres.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'").splitlines()
    for at in range(0, len(names), 500):
        postgres.sql("".join(f'DROP ROLE "{name}";' for name in names[at:at + 500]))
    postgres.sql("SELECT pg_stat_statements_reset()")


def play(servers, postgres, arguments):
    contexts = {server.name: prepare(server, postgres) for server in servers}
    rounds, alones = {server.name: [] for server in servers}, []
    for _ in range(arguments.rounds):
        for server in servers:
            clean(postgres)
            row = wrk(server, lua_get("database/creds/app"), contexts[server.name], arguments.connections, arguments.seconds)
            took, made = inside(postgres)
            row["pg_us"] = took * 1000 / max(made, 1)
            rounds[server.name].append(row)
        clean(postgres)
        alones.append(alone(postgres, POOL, arguments.seconds))
    return rounds, statistics.median(alones)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, help="name=binary, the first is the reference")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=8)
    arguments = parser.parse_args()
    postgres, servers = Postgres("shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_utility=on",
                                 "pg_stat_statements.max=200000", fsync=True), []
    try:
        postgres.sql("CREATE EXTENSION pg_stat_statements; CREATE ROLE readers; GRANT SELECT ON orders TO readers")
        for spec in arguments.server:
            servers.append(Server(*spec.split("=", 1)))
            servers[-1].init()
        rounds, ceiling = play(servers, postgres, arguments)
        print(f"{'server':12}{'creds/s':>10}{'cpu us/req':>12}{'in pg us':>10}{'p50 ms':>9}{'p99 ms':>9}{'non-2xx':>9}{'x creds/s':>11}")
        reference = None
        for name, rows in rounds.items():
            median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            reference = reference or median["rps"]
            print(f"{name:12}{median['rps']:10.0f}{median['cpu_us']:12.1f}{median['pg_us']:10.0f}{median['p50_ms']:9.2f}"
                  f"{median['p99_ms']:9.2f}{median['bad']:9.0f}{median['rps'] / reference:11.2f}")
        print(f"{'pgbench':12}{ceiling:10.0f}  the same statements with {POOL} connections and no server in between")
    finally:
        for server in servers:
            server.stop()
        postgres.stop()


if __name__ == "__main__":
    main()
