"""A process that yields does so across sessions too."""

import subprocess
import sys

import pytest

from host.priority import AUTOGROUP

SCRIPT = """
import os
from host.priority import AUTOGROUP, yield_to_others
yield_to_others(7)
print(os.nice(0), AUTOGROUP.read_text().split()[-1] if AUTOGROUP.exists() else "none")
"""


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="the kernel does not group by session")
def test_niceness_is_that_of_the_session_as_well():
    command = [sys.executable, "-c", SCRIPT]
    output = subprocess.run(
        command, start_new_session=True, capture_output=True, text=True, check=True
    ).stdout
    niceness, of_session = (int(word) for word in output.split())
    assert niceness >= 7  # on top of what the tests run with
    assert of_session == 7
