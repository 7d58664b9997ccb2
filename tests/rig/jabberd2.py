#!/usr/bin/python3
"""A jabberd2 in the current directory: its router, session manager and client port as one program.

    jabberd2.py run PROGRAMS SCHEMA PORT      until one of the three ends; the router listens at PORT
    jabberd2.py register USER DOMAIN PASSWORD

PROGRAMS is the folder they are in, SCHEMA the file that makes their database. They share this program's process group, so whoever ends that
ends them all.
"""

import gzip
import os
import socket
import sqlite3
import subprocess
import sys
import time

WAIT_SECONDS = 20
DATABASE = "sqlite.db"


def run(programs, schema, port):
    with sqlite3.connect(DATABASE) as database:
        database.executescript(gzip.open(schema, "rt").read())
    start(programs, "router")
    # The others would try once more only after whole seconds.
    await_port(int(port))
    start(programs, "sm")
    start(programs, "c2s")
    os.wait()
    return 1


def register(user, domain, password):
    with sqlite3.connect(DATABASE, timeout=WAIT_SECONDS) as database:
        database.execute("INSERT INTO authreg VALUES (?, ?, ?)", (user, domain, password))


def start(programs, name):
    subprocess.Popen([f"{programs}/jabberd2-{name}", "-c", f"{name}.xml"])


def await_port(port):
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit({"run": run, "register": register}[sys.argv[1]](*sys.argv[2:]))
