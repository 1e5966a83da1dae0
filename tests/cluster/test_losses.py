"""Whatever is lost on disk or killed: `status` says what it sees, `down` ends it all, `up` mends it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psutil
import pytest

from cluster import record, running, status, supervisor
from cluster.plan import Plan
from cluster.session import session
from tests.cluster.test_cluster import free_range, pid_of, plan, root, wait

__all__ = ["plan", "root"]  # fixtures


def family(chosen: Plan) -> list[psutil.Process]:
    manager = running.manager(chosen)
    assert manager is not None
    return [manager, *manager.children(recursive=True)]


def test_a_second_cluster_of_one_folder_is_refused_and_the_first_left_alone(plan: Plan, root: Path) -> None:
    supervisor.up(plan)
    running = family(plan)
    other = Plan.from_environment(free_range(16), plan.folder, root, dict(os.environ))
    with pytest.raises(supervisor.ClusterError, match=f"runs at port {plan.port}, not {other.port}"):
        supervisor.up(other)
    with pytest.raises(supervisor.ClusterError, match="--folder"), session(other):
        pass
    assert all(one.is_running() for one in running)
    assert plan.answers()


def test_down_ends_a_cluster_whose_folder_was_removed(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.up(plan)
    running = family(plan)
    shutil.rmtree(plan.folder)
    status.show(plan)
    shown = capsys.readouterr().out
    assert shown.count(" ready") == len(plan.processes)
    begun = time.monotonic()
    assert supervisor.down(plan)
    assert time.monotonic() - begun < 20
    time.sleep(3)  # a manager that lives would have started them again
    assert not any(one.is_running() for one in running)
    assert not any(process.port_taken() for process in plan.processes)


def test_up_after_the_folder_was_removed_leaves_one_manager(plan: Plan) -> None:
    supervisor.up(plan)
    first = family(plan)[0]
    shutil.rmtree(plan.folder)
    supervisor.up(plan)
    assert not first.is_running()
    assert len([one for one in running.marked(plan) if running.is_manager(one)]) == 1


def test_an_up_that_cannot_be_recorded_leaves_nothing(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "add", full)
    with pytest.raises(OSError, match="No space left"):
        supervisor.up(plan)
    assert not running.marked(plan)
    assert not any(process.port_taken() for process in plan.processes)


def test_status_sees_that_the_manager_is_gone_and_up_mends_it(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.up(plan)
    gateway = pid_of(plan, "gateway")
    family(plan)[0].kill()
    wait(lambda: running.manager(plan) is None)
    capsys.readouterr()
    status.show(plan)
    assert "the process manager is gone" in capsys.readouterr().out
    os.kill(gateway, 9)
    wait(lambda: not plan.answers())
    status.show(plan)
    shown = capsys.readouterr().out
    assert shown.count("not ready") == 1
    assert "the process manager is gone" in shown
    supervisor.up(plan)
    capsys.readouterr()
    status.show(plan)
    shown = capsys.readouterr().out
    assert shown.count(" ready") == len(plan.processes)
    assert "not ready" not in shown
    assert "gone" not in shown
