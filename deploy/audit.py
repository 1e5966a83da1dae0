"""`python -m deploy.audit`: check pins, licences and known vulnerabilities of the installed packages.

Exit code 1 if a check fails; with --strict also if a check cannot run. The tools are installed in their own
environment in .cache/tools.
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
"""pip-audit's vulnerability services, in the order tried."""
ALLOWED = re.compile(
    r"MIT|BSD|Apache|PSF|Python Software Foundation|CNRI-Python|ISC|HPND|Historical Permission|MPL|Mozilla Public|"
    r"Unlicense|Public Domain|CC0|Zlib|BSL-1|DFSG approved"
)
KNOWN = {
    "nvidia": "CUDA libraries that torch installs on machines with a GPU, under NVIDIA's own terms",
    "resvg-py": "MIT according to its repository; the package metadata has no licence",
}
"""Licences missing in the packages' metadata, by name prefix."""


def pins(constraints: str) -> dict[str, str]:
    """Name to version, from the lines `name==version`."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", constraints, re.MULTILINE)
    return {_name(name): version for name, version in found}


def installed() -> dict[str, str]:
    """Name to version of the packages in this environment, without this project's and pip's own."""
    found = {_name(one.metadata["Name"]): one.version.partition("+")[0] for one in metadata.distributions()}
    return {name: version for name, version in found.items() if name not in OURS}


def unpinned(pinned: dict[str, str], found: dict[str, str]) -> list[str]:
    """Installed packages without a pin, or in another version than the pinned one."""
    return [
        f"{name} {version} is installed, {pinned.get(name, 'nothing')} is pinned"
        for name, version in sorted(found.items())
        if pinned.get(name) != version
    ]


def forbidden(listed: list[dict[str, str]]) -> list[str]:
    """Packages whose licence is not in ALLOWED or KNOWN."""
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
    # Pinned tools with fixed arguments; their input is a file.
    return subprocess.run([str(w) for w in words], check=check, capture_output=True, text=True, timeout=600)  # noqa: S603


def _licences() -> list[dict[str, str]]:
    done = _run(_tool("pip-licenses"), f"--python={sys.executable}", "--format=json", "--from=mixed")
    listed: list[dict[str, str]] = json.loads(done.stdout)
    return listed


def _vulnerabilities(pinned: dict[str, str]) -> tuple[int, list[str]]:
    """The number of packages that a service has data on, and their vulnerabilities. 0: no service responded."""
    audit = _tool("pip-audit")
    requirements = HOME / "pinned.txt"
    requirements.write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()))
    for service in SERVICES:
        words = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off", "-s", service]
        done = _run(audit, "-r", requirements, *words, check=False)
        if not done.stdout.lstrip().startswith("{"):
            continue  # the service did not respond
        known = [one for one in json.loads(done.stdout)["dependencies"] if "vulns" in one]
        if known:
            return len(known), [f"{o['name']} {o['version']}: {v['id']}" for o in known for v in o["vulns"]]
    return 0, []


def _report(strict: bool) -> Iterator[tuple[str, list[str], bool]]:
    """Yields each check's description, its findings, and whether it failed."""
    pinned, found = pins((ROOT / "constraints.txt").read_text()), installed()
    wrong = unpinned(pinned, found)
    yield f"pins: {len(found)} packages are installed", wrong, bool(wrong)
    conflicts = _run(sys.executable, "-m", "pip", "check", check=False)
    lines = conflicts.stdout.splitlines() if conflicts.returncode else []
    yield "pins: consistent dependencies (pip check)", lines, bool(lines)
    listed = _licences()
    wrong = forbidden(listed)
    yield f"licences: {len(listed)} packages", wrong, bool(wrong)
    known, wrong = _vulnerabilities({name: pinned.get(name, version) for name, version in found.items()})
    if known:
        yield f"vulnerabilities: pip-audit's service has data on {known} of {len(found)} packages", wrong, bool(wrong)
    else:
        yield "vulnerabilities: NOT CHECKED, no pip-audit service responded", [], strict


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description=__doc__.partition("\n")[0])
    parser.add_argument("--strict", action="store_true", help="fail also if a check cannot run")
    failed = False
    for sentence, wrong, bad in _report(parser.parse_args().strict):
        failed |= bad
        print(f"{'FAILED' if bad else 'passed'} {sentence}", *wrong, sep="\n         ", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
