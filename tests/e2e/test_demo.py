"""``ONCE=1 make demo``: the scenario against a server of its own, verdict and all."""

from __future__ import annotations

import os
import re
import subprocess
import sys


def test_demo_once(tmp_path):
    env = {**os.environ, "ONCE": "1", "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "server.cli", "demo", "--once"], env=env, capture_output=True, text=True, timeout=560
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    verdict = re.search(r"demo: (\d+) of (\d+) steps as expected", done.stdout)
    assert verdict and verdict[1] == verdict[2] and int(verdict[2]) >= 10
