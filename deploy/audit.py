"""`python -m deploy.audit`: pins, licences and known vulnerabilities of all installed packages.

Exit code 1 if a check fails, and with --strict also if one could not run. The tools have their own environment in
.cache/tools.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".cache" / "tools" / "audit"
TOOLS = ("pip-audit==2.10.1", "pip-licenses==5.5.5")
OURS = {"hart-client", "pip", "setuptools", "wheel"}
SERVICES = ("pypi", "osv")
"""Vulnerability services of pip-audit, in the order of use."""
ALLOWED = re.compile(
    r"MIT|BSD|Apache|PSF|Python Software Foundation|CNRI-Python|ISC|HPND|Historical Permission|MPL|Mozilla Public|"
    r"Unlicense|Public Domain|CC0|Zlib|BSL-1|DFSG approved"
)
KNOWN = {
    "nvidia": "CUDA's libraries, a dependency of torch on machines with a GPU, under NVIDIA's own terms",
    "resvg-py": "MIT, by its repository; missing in the package itself",
}
"""Licences that the packages' metadata lack, by prefix of the name."""


def pins(constraints: str) -> dict[str, str]:
    """Name to version, of every line `name==version`."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", constraints, re.MULTILINE)
    return {_name(name): version for name, version in found}


def installed() -> dict[str, str]:
    """Name to version of the packages in this environment, without ours and pip's own."""
    found = {_name(one.metadata["Name"]): one.version.partition("+")[0] for one in metadata.distributions()}
    return {name: version for name, version in found.items() if name not in OURS}


def unpinned(pinned: dict[str, str], there: dict[str, str]) -> list[str]:
    """Packages installed in another version than the pinned one, or without a pin."""
    return [
        f"{name} {version} is installed, {pinned.get(name, 'nothing')} is pinned"
        for name, version in sorted(there.items())
        if pinned.get(name) != version
    ]


def forbidden(listed: list[dict[str, str]]) -> list[str]:
    """Packages whose licence is neither among the allowed ones nor known."""
    return [
        f"{one['Name']} {one['Version']}: {one['License']}"
        for one in listed
        if not any(_name(one["Name"]).startswith(prefix) for prefix in (*KNOWN, *OURS))
        and not all(ALLOWED.search(part) for part in re.split(r";| AND ", one["License"]))
    ]


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _tool(name: str) -> Path:
    path = HOME / "bin" / name
    if not path.exists():
        venv.create(HOME, with_pip=True)
        _run(HOME / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS)
    return path


def _run(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    # Pinned tools with arguments of our own; their input is a file.
    return subprocess.run([str(w) for w in words], check=check, capture_output=True, text=True, timeout=600)


def _licences() -> list[dict[str, str]]:
    done = _run(_tool("pip-licenses"), f"--python={sys.executable}", "--format=json", "--from=mixed")
    listed: list[dict[str, str]] = json.loads(done.stdout)
    return listed


def _vulnerabilities(pinned: dict[str, str]) -> tuple[int, list[str]]:
    """The number of packages that a service knows, and their vulnerabilities."""
    audit = _tool("pip-audit")
    requirements = HOME / "pinned.txt"
    requirements.write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()))
    for service in SERVICES:
        words = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off", "-s", service]
        done = _run(audit, "-r", requirements, *words, check=False)
        if not done.stdout.lstrip().startswith("{"):
            continue  # the service does not answer
        known = [one for one in json.loads(done.stdout)["dependencies"] if "vulns" in one]
        if known:
            return len(known), [f"{o['name']} {o['version']}: {v['id']}" for o in known for v in o["vulns"]]
    return 0, []


def _report(strict: bool) -> Iterator[tuple[str, list[str], bool]]:
    """Each check's description, its findings, and whether it failed."""
    pinned, there = pins((ROOT / "constraints.txt").read_text()), installed()
    wrong = unpinned(pinned, there)
    yield f"pins: {len(there)} packages are installed", wrong, bool(wrong)
    conflicts = _run(sys.executable, "-m", "pip", "check", check=False)
    lines = conflicts.stdout.splitlines() if conflicts.returncode else []
    yield "pins: they agree with one another (pip check)", lines, bool(lines)
    listed = _licences()
    wrong = forbidden(listed)
    yield f"licences: {len(listed)} packages", wrong, bool(wrong)
    known, wrong = _vulnerabilities({name: pinned.get(name, version) for name, version in there.items()})
    if known:
        yield f"vulnerabilities: {known} of {len(there)} packages are known to pip-audit's service", wrong, bool(wrong)
    else:
        yield "vulnerabilities: NOT CHECKED, no service of pip-audit is reachable", [], strict


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description=__doc__.partition("\n")[0])
    parser.add_argument("--strict", action="store_true", help="also fail if a check cannot run")
    failed = False
    for sentence, wrong, bad in _report(parser.parse_args().strict):
        failed |= bad
        print(f"{'FAILED' if bad else 'held  '} {sentence}", *wrong, sep="\n         ", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
