"""Refuses to build a wheel without the generated stubs; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithStubs(build_py):
    """An editable install may come before the stubs; a wheel may not."""

    def run(self) -> None:
        """Look, then build."""
        if not self.editable_mode and not Path("hart/v1/images_pb2.py").exists():
            raise SystemExit(
                "hart-client: the stubs of protos/ are missing; run `make protos`, or client/build_stubs.py, first"
            )
        super().run()


setup(cmdclass={"build_py": BuildWithStubs})
