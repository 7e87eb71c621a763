"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_README = Path(__file__).parents[2] / "README.md"


def test_the_library_example_prints_what_it_says(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", _README.read_text(encoding="utf-8"), re.DOTALL)
    (said,) = re.findall(r"^asyncio\.run\(main\(\)\)  # (.*)$", code, re.MULTILINE)
    script = tmp_path / "example.py"
    script.write_text(code.replace("/tmp/lethe-library.db", str(tmp_path / "lethe.db")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=_README.parent)
    assert done.stdout.strip() == said, done.stderr[-2000:]
