#!/usr/bin/python3
"""Runs one program and makes sure that it ends when whoever started it ends.

    leash.py [--as USER] [--dir DIR] [--remove] COMMAND...

The program gets a process group of its own. When the standard input of this script closes (its starter went away, in
whatever way, or lets go on purpose) the group gets SIGTERM, five seconds later SIGKILL. Nothing else is ever signalled.
Started by root, DIR is given to USER and the program runs as USER: Prosody and ejabberd refuse to be root, and Apache
and nginx hand their work to somebody else anyway. Started by anybody else --as means nothing.
With --remove, DIR is deleted at the end. The first line of standard output is the program's process id; what the
program prints goes to standard error. The exit code is the program's.
"""

import argparse
import grp
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys

GRACE_SECONDS = 5


def main():
    args = arguments()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A polite end of this script itself is the same as letting go of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.stdin.close())
    child = subprocess.Popen(args.command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True, cwd=args.dir,
                             **identity(args.user, args.dir))
    print(child.pid, flush=True)
    ended = os.pidfd_open(child.pid)
    try:
        wait_for_end(ended)
    finally:
        stop(child, ended)
        if args.remove and args.dir:
            shutil.rmtree(args.dir, ignore_errors=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--as", dest="user")
    parser.add_argument("--dir")
    parser.add_argument("--remove", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def identity(user, directory):
    """What Popen needs to start as `user`, who then owns everything below `directory`."""
    if not user or os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(user)
    for path, _, files in os.walk(directory) if directory else ():
        for name in [path] + [os.path.join(path, file) for file in files]:
            os.chown(name, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": os.getgrouplist(user, entry.pw_gid)}


def wait_for_end(ended):
    """Returns when the program has ended or standard input is closed."""
    while True:
        try:
            readable, _, _ = select.select([0, ended], [], [])
        except (OSError, ValueError):
            return
        if ended in readable or not os.read(0, 4096):
            return


def stop(child, ended):
    """Ends the program's whole group: a server may have children that outlive it. The program is not reaped before,
    so that its number cannot belong to anybody else."""
    os.killpg(child.pid, signal.SIGTERM)
    select.select([ended], [], [], GRACE_SECONDS)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    sys.exit(main())
