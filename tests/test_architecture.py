"""Who imports whom, and what importing costs."""

import ast
import subprocess
import sys
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
    {"model", "infer", "describe"},
    {"evaluate"},
    {"plots"},
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


def imports(path):
    """Absolute names of what a file imports: at its top level, and anywhere."""
    tree = ast.parse(path.read_text())
    package = ["pyro_vae", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((a.name, top) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            yield name, top
            yield from ((f"{name}.{a.name}", top) for a in node.names)


FILES = sorted(ROOT.rglob("*.py"))


def floor(room):
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), None)


def seen_by(path):
    """The rooms of the package that a file imports from, and those within them."""
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] == "pyro_vae" and len(parts) > 1:
            yield parts[1], "/".join(parts[1:3])


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
    if parts[0] not in ("cli", "__main__"):
        heavy = {n.split(".")[0] for n, top in imports(path) if top} & HEAVY
        assert not heavy, f"{heavy} must be imported where it is used"


def test_the_check_sees_what_it_should():
    names = {n for n, _ in imports(ROOT / "model" / "vae.py")}
    assert "pyro_vae.families.registry" in names
    assert "torch" in names
    estimator = ROOT / "infer" / "estimators" / "estimator.py"
    assert "pyro_vae.language.spec" in {n for n, _ in imports(estimator)}


def modules_after(code):
    shown = "import sys; print(' '.join(m.split('.')[0] for m in sys.modules))"
    run = [sys.executable, "-c", f"{code}; {shown}"]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


def test_help_does_not_import_torch():
    code = "import pyro_vae.cli as c; from typer.testing import CliRunner as R"
    seen = modules_after(code + "; assert R().invoke(c.app, ['fit', '--help']).exit_code == 0")
    assert not seen & {"torch", "pyro", "numpy", "pandas", "matplotlib"}


def test_importing_the_package_costs_no_more_than_pyro():
    assert not modules_after("import pyro_vae; pyro_vae.parse, pyro_vae.learned") & {
        "torch",
        "pyro",
    }
    extra = modules_after("import pyro_vae; pyro_vae.VAE, pyro_vae.fit") & HEAVY
    assert not extra


def test_every_public_name_is_there_and_described():
    for name in pyro_vae.__all__:
        value = getattr(pyro_vae, name)
        assert value.__doc__ or name in ("__version__",)
        assert name in dir(pyro_vae)
    with pytest.raises(AttributeError, match="no attribute 'vea'"):
        pyro_vae.vea  # noqa: B018
