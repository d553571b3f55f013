"""A table of the source files: purpose, lines, tokens per code line, long lines, longest function.

    python tests/benchmarks/code_table.py [FOLDER]

Comments, docstrings and blank lines are no code. The last row: all Python outside tests/.
"""
import ast
import io
import re
import sys
import tokenize
from pathlib import Path

NO_CODE = "COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"


def measure(path):
    """(lines, lines over 100 columns, tokens, code lines, (longest function's lines, its name))."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    wide = sum(len(line) > 100 for line in lines)
    if path.suffix != ".py":
        return len(lines), wide, 0, 0, (0, "")
    nodes = [*ast.walk(ast.parse(text))]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    texts = [node for node in nodes if isinstance(node, ast.Module | ast.ClassDef)] + functions
    docstrings = {node.body[0].lineno for node in texts if ast.get_docstring(node)}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline)
              if tokenize.tok_name[token.type] not in NO_CODE
              and not (token.type == tokenize.STRING and token.start[0] in docstrings)]
    code = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    longest = max(((f.end_lineno - f.lineno + 1, f.name) for f in functions), default=(0, ""))
    return len(lines), wide, len(tokens), len(code), longest


def show(name, purpose, lines, wide, tokens, code, longest):
    density = f"{tokens / code:.1f}" if code else ""
    function = f"{longest[0]} `{longest[1]}`" if longest[0] else ""
    print(f"| `{name}` | {purpose} | {lines} | {density} | {wide / lines:.0%} | {function} |")


def main(root):
    print("| file | purpose | lines | tokens a code line | over 100 columns | longest function |\n"
          "|---|---|---|---|---|---|")
    found = []
    for path in sorted(root.rglob("*.*")):
        name = path.relative_to(root)
        hidden = name.parts[0].startswith(".")
        if hidden or path.suffix not in (".py", ".cu", ".cuh", ".h") or not path.stat().st_size:
            continue
        purpose = re.search(r'(?:"""|//|#) *(.+?)(?:"""|$)', path.read_text("utf-8"), re.M)
        show(name, purpose[1].replace("|", "\\|") if purpose else "", *measure(path))
        if path.suffix == ".py" and name.parts[0] != "tests":
            found.append(measure(path))
    *sums, functions = zip(*found)
    show("Python outside tests", f"{len(found)} files", *map(sum, sums), max(functions))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]))
