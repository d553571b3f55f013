"""A few cases of every group of faults.py, and faults that its judge must see."""
import io
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("faults.py forks, and reads /proc", allow_module_level=True)

import faults
from conftest import ROOT
from fault_groups.bench import Bench, torn


@pytest.mark.parametrize("group", faults.GROUPS)
def test_a_few_faults(group):
    out = io.StringIO()
    (tried, failures), = faults.try_groups([group], ROOT, quick=True, out=out).values()
    assert tried >= 9 and not failures, out.getvalue()


PLANTED = {
    "raise ValueError('x')": "stderr has Traceback",
    "import warnings; warnings.warn('x')": "stderr has UserWarning",
    "while True: pass": "hung",
    "import sys; sys.exit(3)": "exit code 3",
    "import sys; sys.exit(2)": "no message",
    "print('\\x1b[31m')": "control codes",
    "import sys; print('x: y', file=sys.stderr)": "words on stderr after a success",
    "import sys; print('x: y\\n' * 9, file=sys.stderr); sys.exit(2)": "lines on stderr"}


def test_planted_faults_are_seen(tmp_path):
    bench = Bench(tmp_path, ROOT, seed=0, quick=True)
    try:
        for code, expected in PLANTED.items():
            bench.judge(bench.call("-c", code, folder=bench.fresh(), limit=2))
            _, problems = bench.failures[-1]
            assert any(expected.replace("User", "") in problem for problem in problems), code
        assert bench.tried == len(bench.failures) == len(PLANTED)
        assert bench.judge(bench.call("-c", "print(1)", folder=bench.fresh()))
    finally:
        bench.program.close()


@pytest.mark.parametrize("name, content", [
    ("a.png", (ROOT / "tutorial" / "shapes.png").read_bytes()[:-200]),
    ("a.json", b'{"a": 1'), ("a.csv", b"a,b\n1"), ("a.csv", b"a,b\n1\n"), ("a.npz", b"PK"),
    ("a.md", b"# half a li")])
def test_torn_files_are_seen(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert len(list(torn(tmp_path))) == 1
    (tmp_path / name).rename(tmp_path / f"{name}.12.tmp")
    assert not list(torn(tmp_path)) and len(list(torn(tmp_path, temporary=True))) == 1
