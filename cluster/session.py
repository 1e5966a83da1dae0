"""A cluster for the time of a command: started where none answers, and stopped by the last session that ends."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cluster import record, supervisor
from cluster.plan import Plan


@contextmanager
def session(plan: Plan) -> Iterator[None]:
    """The cluster answers meanwhile. A cluster that `up` started, now or before, runs on."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    with (plan.folder / "sessions").open("w") as sessions:
        fcntl.flock(sessions, fcntl.LOCK_SH)
        try:
            supervisor.await_start(plan)
            if not plan.answers():
                supervisor.up(plan, keep=False)
            elif not supervisor.as_planned(plan):
                warning = f"using what runs at {plan.endpoint} as it is: it was not started with these settings"
                print(warning, file=sys.stderr, flush=True)
            yield
        finally:
            try:
                fcntl.flock(sessions, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # other sessions run on
            else:
                if not record.kept(plan):
                    supervisor.down(plan)
