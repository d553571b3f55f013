"""README and docs: links, flags and files that they name exist, and their Python runs."""
import contextlib
import io
import re
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, TINY_FLAGS, WITHOUT_GPU

import kernels

README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "tutorial" / "README.md",
         *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```.*?^```", re.M | re.S)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
COMMANDS = ["semgan.py", "semgan.py sample", "semgan.py evaluate", "semgan.py interpolate",
            "semgan.py export", "semgan.py compare", "semgan.py doctor", "data.py",
            "data.py inspect", "data.py facades", "inception.py", "metrics.py",
            "tests/benchmarks/conv_methods.py", "experiments/encoder.py train",
            "experiments/encoder.py encode", "experiments/encoder.py interpolate",
            "experiments/encoder.py evaluate", "experiments/paper.py", "experiments/pairs.py",
            "experiments/pix2pix.py train", "experiments/pix2pix.py dream",
            "experiments/segmenter.py"]


def text_of(page):
    return page.read_text(encoding="utf-8")


def name(page):
    return page.relative_to(ROOT).as_posix()


def anchors(page):
    """The names that a code host gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", text_of(page)), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text_of(page))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lines_of_prose_are_short(page):
    lines = CODE.sub("", text_of(page)).split("\n")
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []


def test_the_readme_is_short():
    assert len(text_of(README).split()) < 1600


@pytest.fixture(scope="module")
def flags(pytestconfig):
    """{command: the flags that its --help names}."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for command in COMMANDS:
            script, *words = command.split()
            patch.setattr(sys, "argv", [script, *words, "--help"])
            found[command] = set(FLAG.findall(printed(ROOT / script)))
    found["pytest"] = {"--" + name for name in vars(pytestconfig.option)}
    return found


def printed(script):
    """What a script prints before it exits."""
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    return out.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_flags_exist(page, flags):
    """Each flag belongs to a command; in a line that calls one, to that one."""
    known = set().union(*flags.values())
    for line in text_of(page).split("\n"):
        line = line.split("  #")[0]
        call = re.search(r"(?:^|&& )[.\w/\\]*python (\w+\.py)(?: (\w+))?", line)
        script, word = call.groups() if call else ("", "")
        there = flags.get(f"{script} {word}", flags.get(script, known))
        assert set(FLAG.findall(line)) <= there, line


def python_code(page):
    """The page's blocks of Python, but for notebook cells."""
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(page), re.M | re.S)
    return [block for block in blocks if not block.startswith("!")]


def test_the_kernel_of_your_own(tmp_path, monkeypatch):
    """The example's fault is caught, with the message that the page gives."""
    code, = python_code(ROOT / "docs" / "kernels.md")
    message = " ".join(re.findall(r"^# (.*)", code, re.M))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kernels.KernelError) as fault:
        exec(code, {})
    assert f"KernelError: {fault.value}" == message


def test_files_exist():
    """Each file of the README's table, and each file of the project that a page names."""
    _, _, text = text_of(README).partition("## The files")
    rows = re.findall(r"^\| (`.*?) \|", text.partition("\n## ")[0], re.M)
    assert len(rows) > 10
    named = set(re.findall(r"`(.+?)`", " ".join(rows)))
    folders = "app", "docs", "formats", "kernels", "tests", "tutorial"
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            named |= set(re.findall(rf"\b(?:{'|'.join(folders)})/[\w/.*]*\w", text_of(page)))
    for path in named:
        assert list(ROOT.glob(path.rstrip("/"))), path


def test_a_run_is_loaded_and_sampled(tmp_path, monkeypatch):
    """The README's lines of Python, after a tiny run."""
    command = [sys.executable, ROOT / "semgan.py", *TINY_FLAGS, "--steps", "1", "--device", "numpy"]
    subprocess.run(command, cwd=tmp_path, env=WITHOUT_GPU, check=True, capture_output=True)
    code, = python_code(README)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["maps"].shape == (8, TINY["side"], TINY["side"])
    assert names["colors"].shape == (8, TINY["side"], TINY["side"], 3)
