"""A PostgreSQL of our own on loopback, in a temporary directory."""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile


class Postgres:
    """Started with a superuser `vault_admin`, reached by TCP with SCRAM, holding a database `myapp` with one table."""

    ADMIN, PASSWORD = "vault_admin", "admin_password"

    def __init__(self, *settings, fsync=False):
        self.settings = [f"fsync={'on' if fsync else 'off'}", *settings]
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [os.path.dirname(shutil.which("initdb") or "")]
        self.bin = found[-1]
        # It refuses to run as root.
        self.user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        self.directory = tempfile.mkdtemp(prefix="seed-postgres-")
        if self.user:
            os.chown(self.directory, self.user.pw_uid, self.user.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._initialise()

    def _initialise(self):
        password_file = f"{self.directory}/password"
        with open(password_file, "w") as out:
            out.write(self.PASSWORD)
        os.chmod(password_file, 0o644)
        data = f"{self.directory}/data"
        self._run("initdb", "-D", data, "-U", self.ADMIN, f"--pwfile={password_file}", "-A", "scram-sha-256", "-N")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= "
        options += " ".join(f"-c {setting}" for setting in self.settings)
        self._run("pg_ctl", "-D", data, "-o", options, "-l", f"{self.directory}/log", "-w", "start")
        self.sql("CREATE DATABASE myapp", database="postgres")
        self.sql("CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (1, 'tea')")

    def _run(self, program, *arguments):
        identity = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        subprocess.run([f"{self.bin}/{program}", *arguments], check=True, capture_output=True, cwd=self.directory, **identity)

    def sql(self, statement, user=ADMIN, password=PASSWORD, database="myapp"):
        """Runs a statement; its rows as text, or subprocess.CalledProcessError."""
        done = subprocess.run(
            ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", database, "-v", "ON_ERROR_STOP=1", "-Atc", statement],
            env={**os.environ, "PGPASSWORD": password}, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def stop(self):
        self._run("pg_ctl", "-D", f"{self.directory}/data", "-m", "immediate", "stop")
        shutil.rmtree(self.directory, ignore_errors=True)
