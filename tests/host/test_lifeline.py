"""A child ends with its parent."""

import subprocess
import sys
import time

CHILD = """
import os, time
from host.lifeline import end_with_parent
end_with_parent(lambda: os._exit(7))
print("there", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_it_leaves_when_its_standard_input_ends():
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout.readline() == b"there\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(10) == 7


def test_it_leaves_when_its_parent_is_killed():
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        lines = {parent.stdout.readline(), parent.stdout.readline()}
        pid = int(next(line for line in lines if line != b"there\n"))
        parent.kill()
        deadline = time.monotonic() + 10
        while _runs(pid):
            assert time.monotonic() < deadline, "the child has outlived its parent"
            time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
