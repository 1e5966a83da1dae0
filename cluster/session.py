"""A cluster for the time of a command: started where none answers, and stopped by whoever leaves it last."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cluster import supervisor
from cluster.plan import Plan


@contextmanager
def session(plan: Plan) -> Iterator[None]:
    """The cluster answers meanwhile. One that `up` started, now or before, is left running."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    with (plan.folder / "visitors").open("w") as visitors:
        fcntl.flock(visitors, fcntl.LOCK_SH)
        try:
            supervisor.await_start(plan)
            if not plan.answers():
                supervisor.up(plan, keep=False)
            elif not supervisor.as_planned(plan):
                told = f"using what runs at {plan.endpoint} as it is: it was not started with these settings"
                print(told, file=sys.stderr, flush=True)
            yield
        finally:
            try:
                fcntl.flock(visitors, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # Others are still here.
            else:
                if not supervisor.kept(plan):
                    supervisor.down(plan)
