"""Manifests of kinds that are not Kubernetes' own, against the schemas of their projects. Knows no content.

The schemas are those of the packages @kubernetes-models/* on npm, made from the projects' Go types. TypeScript finds
unknown and missing fields and wrong types; the packages' own validators find patterns and bounds."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from k8s.tools import tool

PACKAGES = {
    "keda.sh": "keda",
    "monitoring.coreos.com": "prometheus-operator",
    "cert-manager.io": "cert-manager",
    "gateway.networking.k8s.io": "gateway-api",
}
"""API group to package."""
COMPILER = [
    *("--noEmit", "--strict", "--skipLibCheck"),
    *("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
]
VALIDATE = """
import { readFileSync } from "node:fs";
const objects = JSON.parse(readFileSync("objects.json"));
let wrong = 0;
for (const { module, kind, name, object } of objects) {
  const model = (await import(module))[kind];
  try { new model(object).validate(); } catch (error) { wrong++; console.log(`${name}: ${error.message}`); }
}
process.exit(wrong ? 1 : 0);
"""


class Invalid(Exception):
    """A manifest does not match its schema; the message has one line per fault."""


class Unchecked(Exception):
    """There is nothing here to check with; the message says what is missing."""


def validate(documents: Mapping[str, Mapping[str, Any]]) -> int:
    """Check manifests, given by a name for messages. Return how many. Raises Invalid, Unchecked, ToolMissing."""
    if not shutil.which("npm") or not shutil.which("node"):
        raise Unchecked("npm and node are not installed")
    home = tool("foreign-schemas").parents[1]
    with tempfile.TemporaryDirectory(dir=home) as folder:
        _write(Path(folder), documents)
        compiler = str(home / "node_modules/typescript/bin/tsc")
        faults = _run(["node", compiler, *COMPILER, "objects.ts"], folder)
        faults += _run(["node", "validate.mjs"], folder)
    if faults:
        raise Invalid("\n".join(faults))
    return len(documents)


def module_of(document: Mapping[str, Any]) -> str:
    """The npm module of a manifest's kind. Raises Unchecked for a group without a package."""
    group, _, version = document["apiVersion"].partition("/")
    if group not in PACKAGES:
        raise Unchecked(f"no schema of {document['apiVersion']} {document['kind']} is known")
    return f"@kubernetes-models/{PACKAGES[group]}/{group}/{version}/{document['kind']}"


def _write(folder: Path, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """The manifests as typed literals, one per line, and as data."""
    imports, literals, objects = {}, [], []
    for number, (name, document) in enumerate(documents.items()):
        module, kind = module_of(document), document["kind"]
        imports[kind] = f'import type {{ I{kind} }} from "{module}";'
        literals.append(f"export const object{number}: I{kind} = {json.dumps(document)}; // {name}")
        objects.append({"module": module, "kind": kind, "name": name, "object": document})
    (folder / "objects.ts").write_text("\n".join([*imports.values(), *literals]) + "\n")
    (folder / "objects.json").write_text(json.dumps(objects))
    (folder / "validate.mjs").write_text(VALIDATE)
    (folder / "package.json").write_text('{"type": "module"}')


def _run(words: Sequence[str], folder: str) -> list[str]:
    """The faults that a program prints, with the manifest's name in place of its line."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return []
    lines = (Path(folder) / "objects.ts").read_text().splitlines()
    faults = []
    for line in (done.stdout + done.stderr).splitlines():
        place, _, rest = line.partition("): ")
        number = place.removeprefix("objects.ts(").partition(",")[0]
        name = lines[int(number) - 1].rpartition("; // ")[2] if number.isdigit() else ""
        faults.append(f"{name}: {rest}" if name else line)
    return faults or [f"{words[1]} ended with {done.returncode}"]
