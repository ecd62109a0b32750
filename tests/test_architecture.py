"""Who imports whom, and what importing costs."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import pyro_vae

ROOT = Path(pyro_vae.__file__).parent
# From the ground up: a room sees those on floors below it, and what is named beside it.
FLOORS = [
    {"core"},
    {"language"},
    {"distributions"},
    {"families", "data"},
    {"model", "infer"},
    {"program"},
    {"evaluate", "describe"},
    {"plots", "sklearn"},
    {"runs"},
    {"cli"},
    {"__main__"},
]
INSIDE = {  # within a room: who does not see whom
    "infer/engine": {"infer/estimators", "infer/training"},
    "infer/estimators": {"infer/training", "infer/engine"},
    "infer": {"model", "families", "distributions"},
}
HEAVY = {"zuko", "torchvision", "arviz", "matplotlib", "sklearn", "typer"}


@cache
def tree(path):
    return ast.parse(path.read_text())


@cache
def statements(path):
    """The imports of a file: the node, the module's absolute name, whether at the top level."""
    package, top, rows = ["pyro_vae", *path.relative_to(ROOT).parts[:-1]], set(tree(path).body), []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            rows += [(node, alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            rows.append((node, ".".join([*base, *filter(None, [node.module])]), node in top))
    return rows


def imports(path):
    """Absolute names of what a file imports: at its top level, and anywhere."""
    for node, name, top in statements(path):
        yield name, top
        if isinstance(node, ast.ImportFrom):
            yield from ((f"{name}.{alias.name}", top) for alias in node.names)


FILES = sorted(ROOT.rglob("*.py"))
STUBS = sorted(ROOT.rglob("*.pyi"))


def module_of(path):
    parts = ["pyro_vae", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def public_names(path):
    """``__all__`` of a file; all that is imported by the stub beside it is public too."""
    names = set()
    for node in tree(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            names |= set(ast.literal_eval(node.value))
    stub = path.with_suffix(".pyi")
    for node in tree(stub).body if stub in STUBS else ():
        if isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
    return names


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def no_offenders(lines):
    """All of them in the message, one a line."""
    assert not lines, "\n".join([f"{len(lines)} offenders:", *map(str, lines)])


def floor(room):
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), None)


def seen_by(path):
    """The rooms of the package that a file imports from, and those within them."""
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] == "pyro_vae" and len(parts) > 1:
            yield parts[1], "/".join(parts[1:3])


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_rooms_see_only_what_they_may(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "__init__":
        return
    assert floor(parts[0]) is not None, f"{parts[0]} is no room of the plan"
    inner = "/".join(parts[:2])
    hidden = INSIDE.get(parts[0], set()) | INSIDE.get(inner, set())
    for room, within in seen_by(path):
        if room != parts[0] and floor(room) is not None:
            assert floor(room) < floor(parts[0]), f"{path} looks up, or across, to {room}"
        assert not {room, within} & hidden, f"{path} must not see {within}"
    if parts[0] not in ("cli", "__main__", "sklearn"):
        heavy = {n.split(".")[0] for n, top in imports(path) if top} & HEAVY
        assert not heavy, f"{heavy} must be imported where it is used"


def test_the_check_sees_what_it_should():
    names = {n for n, _ in imports(ROOT / "model" / "vae.py")}
    assert "pyro_vae.families.registry" in names
    assert "torch" in names
    estimator = ROOT / "infer" / "estimators" / "estimator.py"
    assert "pyro_vae.language.spec" in {n for n, _ in imports(estimator)}


@pytest.mark.slow
def test_what_another_module_imports_is_public_in_its_home():
    public = {name: public_names(path) for name, path in MODULES.items()}
    wrong = []
    for path in (*FILES, *STUBS):
        for node, home, _ in statements(path):
            if isinstance(node, ast.Import) or home not in MODULES:
                continue
            for name in {alias.name for alias in node.names} - public[home]:
                if f"{home}.{name}" not in MODULES and not name.startswith("__"):
                    wrong.append(f"{home}: {name}, which {module_of(path)} imports")
    no_offenders(sorted(wrong))


@pytest.mark.slow
def test_nothing_private_is_reached_across_modules():
    """``value._name`` stands in a file that defines or sets ``_name``; ``self`` may inherit it."""
    nodes = [node for path in FILES for node in ast.walk(tree(path))]
    names = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    # What torch, Pyro and named tuples have is theirs.
    private = {name for name in names if is_private(name)} - {"_call", "_inverse", "_replace"}
    wrong = []
    for path in FILES:
        own, used = set(), []
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.ImportFrom) and node.level:
                used += [(node, a.name) for a in node.names if is_private(a.name)]
            elif isinstance(node, ast.Attribute) and node.attr in private:
                if isinstance(node.ctx, ast.Store):
                    own.add(node.attr)
                elif ast.unparse(node.value) not in ("self", "super()", "cls"):
                    used.append((node, node.attr))
        wrong += [
            f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
            for node, name in used
            if name not in own
        ]
    no_offenders(wrong)


def test_no_pair_of_modules_imports_each_other():
    """Not for types either: the imports under TYPE_CHECKING and within functions count too."""
    arrows = {
        (module_of(path), name)
        for path in FILES
        for name, _ in imports(path)
        if name in MODULES and name != module_of(path)
    }
    no_offenders([f"{a} <-> {b}" for a, b in sorted(arrows) if a < b and (b, a) in arrows])


def test_no_file_is_longer_than_400_lines():
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    no_offenders([f"{path}: {n}" for path, n in lengths.items() if n > 400])


@pytest.mark.slow
def test_no_function_is_longer_than_60_lines():
    """Without its docstring."""
    long = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[0]
                described = ast.get_docstring(node) is not None
                words = first.end_lineno - first.lineno + 1 if described else 0
                if (n := node.end_lineno - node.lineno + 1 - words) > 60:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {n}")
    no_offenders(long)


def telling(path):
    """The lines that say something, by number: no blank ones, brackets, comments or imports."""
    for i, line in enumerate(path.read_text().splitlines(), 1):
        words = " ".join(line.split())
        if any(c.isalnum() for c in words) and not words.startswith(("#", "import ", "from ")):
            yield i, words


@pytest.mark.slow
def test_no_twelve_lines_stand_twice():
    places = defaultdict(list)
    for path in FILES:
        lines = list(telling(path))
        for k in range(len(lines) - 11):
            run = "\n".join(words for _, words in lines[k : k + 12])
            places[run].append(f"{path.relative_to(ROOT)}:{lines[k][0]}")
    no_offenders([" = ".join(where) for where in places.values() if len(where) > 1])


def test_the_formatter_owns_the_layout():
    skips = {path.relative_to(ROOT): path.read_text().count("# fmt: skip") for path in FILES}
    assert sum(skips.values()) < 20, {str(path): n for path, n in skips.items() if n}


def test_no_test_module_imports_another():
    wrong = []
    for path in Path(__file__).parent.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if re.search(r"(from|import) +test_", text) else ():
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.name} imports {name}" for name in names if name.startswith("test_")]
    no_offenders(wrong)


def modules_after(*codes):
    """What one process has imported after each of these."""
    shown = "print(*sys.modules)"
    run = [sys.executable, "-c", "; ".join(["import sys", *(f"{c}; {shown}" for c in codes)])]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.process
def test_help_does_not_import_torch():
    code = "import pyro_vae.cli as c; from typer.testing import CliRunner as R"
    (seen,) = modules_after(code + "; assert R().invoke(c.app, ['fit', '--help']).exit_code == 0")
    assert not seen & {"torch", "pyro", "numpy", "pandas", "matplotlib"}


@pytest.mark.process
def test_importing_the_package_costs_no_more_than_pyro():
    lines, model, training, trained = modules_after(
        "import pyro_vae as pv; pv.parse, pv.learned", "pv.VAE", "pv.fit",
        "pv.fit(pv.VAE(1, 1, encoder='MLP([1])'), __import__('torch').ones(2, 1), progress=False)",
    )  # fmt: skip
    assert not lines & {"torch", "pyro"}
    assert "torch" in model and "pandas" not in model
    assert not training & HEAVY
    assert not trained & {"torch._dynamo", "torch._inductor"}  # compilers, where nothing compiles


def test_every_public_name_is_there_and_described():
    for name in pyro_vae.__all__:
        value = getattr(pyro_vae, name)
        assert value.__doc__ or name in ("__version__",)
        assert name in dir(pyro_vae)
    with pytest.raises(AttributeError, match="no attribute 'vea'"):
        pyro_vae.vea  # noqa: B018
