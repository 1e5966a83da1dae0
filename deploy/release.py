"""Releases the version of common/version.py: `python -m deploy.release dist|tag|set VERSION`.

`dist` builds the client's wheel and sdist and the chart's package into dist/, with the release notes from CHANGELOG.md.
`tag` does the same on a clean checkout and tags the commit; `--dry-run` prints the tag instead. `set` writes another
version into every file that states it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from common.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
NOTES = "NOTES.md"
STATED = {
    "common/version.py": r'^VERSION = "(.+)"$',
    "client/pyproject.toml": r'^version = "(.+)"$',
    "k8s/chart/Chart.yaml": r"^(?:version|appVersion): (.+)$",
    "Dockerfile": r"(?:^ARG VERSION=|\bhart-[a-z-]+:)(\d+\.\d+\.\d+)",
    "docs/operations.md": r"\bhart-[a-z-]+:(\d+\.\d+\.\d+)",
}
"""Files that state the version, each with the pattern of its line."""
SEMVER = r"\d+\.\d+\.\d+"


class ReleaseError(Exception):
    """The release cannot be made; the message names the file and the remedy."""


def stated(root: Path = ROOT) -> dict[str, set[str]]:
    """The versions that each file states."""
    return {name: set(re.findall(line, (root / name).read_text(), re.MULTILINE)) for name, line in STATED.items()}


def require_one_version(root: Path = ROOT, version: str = VERSION) -> None:
    """Raises ReleaseError if a file states another version."""
    others = {name: found for name, found in stated(root).items() if found != {version}}
    if others:
        listed = "; ".join(f"{name}: {', '.join(sorted(found)) or 'none'}" for name, found in others.items())
        raise ReleaseError(f"expected version {version}: {listed}; `python -m deploy.release set {version}` writes it")


def set_version(version: str, root: Path = ROOT) -> None:
    """Write the version into every file that states it. Raises ReleaseError if it is not MAJOR.MINOR.PATCH."""
    if not re.fullmatch(SEMVER, version):
        raise ReleaseError(f"version {version!r}: expected MAJOR.MINOR.PATCH")
    for name, line in STATED.items():
        text = (root / name).read_text()
        (root / name).write_text(re.sub(line, lambda found: found[0].replace(found[1], version), text, flags=re.M))


def notes(changelog: str, version: str = VERSION) -> str:
    """The section of a version in a changelog. Raises ReleaseError if it has none."""
    found = re.search(rf"^## {re.escape(version)}\b.*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if not found or not found[1].strip():
        raise ReleaseError(f"CHANGELOG.md: no section `## {version}`; rename `## Unreleased` with its date")
    return found[1].strip() + "\n"


def dist() -> list[Path]:
    """Build everything into an empty dist/. Returns the files. Raises ReleaseError."""
    require_one_version()
    text = notes((ROOT / "CHANGELOG.md").read_text())
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    _run(sys.executable, "-m", "build", "--outdir", str(DIST), "client")
    helm = _run(sys.executable, "-m", "k8s.tools", "helm").strip()
    _run(helm, "package", "k8s/chart", "--destination", str(DIST))
    (DIST / NOTES).write_text(text)
    built = sorted(path for path in DIST.iterdir() if path.name != NOTES)
    expected = {f"hart_client-{VERSION}-py3-none-any.whl", f"hart_client-{VERSION}.tar.gz", f"hart-{VERSION}.tgz"}
    if {path.name for path in built} != expected:
        raise ReleaseError(f"dist/: expected {sorted(expected)}, built {[path.name for path in built]}")
    return built


def contents(path: Path) -> list[str]:
    """The names of the files in a wheel, an sdist or a chart's package."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return sorted(wheel.namelist())
    with tarfile.open(path) as archive:
        return sorted(member.name for member in archive.getmembers() if member.isfile())


def tag(dry_run: bool) -> str:
    """Tag the commit with the version. Raises ReleaseError if files are changed or the tag exists."""
    name = f"v{VERSION}"
    if _run("git", "tag", "--list", name).strip():
        raise ReleaseError(f"tag {name} exists; `python -m deploy.release set VERSION` begins the next version")
    if changed := _run("git", "status", "--porcelain").strip():
        message = f"the checkout has changes that are not committed:\n{changed}"
        if not dry_run:
            raise ReleaseError(message)
        print(f"dry run, although {message}", file=sys.stderr)
    if not dry_run:
        _run("git", "tag", "--annotate", name, "--message", f"HART cluster {VERSION}")
    return name


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dist", help="build wheel, sdist and chart into dist/")
    tagged = commands.add_parser("tag", help="build, then tag the commit")
    tagged.add_argument("--dry-run", action="store_true", help="build, and print the tag")
    commands.add_parser("set", help="write another version").add_argument("version", metavar="VERSION")
    chosen = parser.parse_args()
    try:
        if chosen.command == "set":
            set_version(chosen.version)
            return 0
        for path in dist():
            print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes, {len(contents(path))} files")
        if chosen.command == "tag":
            print(f"tag {tag(chosen.dry_run)}{' (dry run: not made)' if chosen.dry_run else ''}")
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


def _run(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"{' '.join(words)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
