"""The watchdog with a server whose faults the test decides on."""

import threading
import time

from traccc_py.backend.watch import Watchdog, WatchOptions
from traccc_py.errors import ServiceError


class FakeServer:
    """A server whose faults the test decides on."""

    def __init__(self):
        self.running, self.instances, self.problem = True, {1, 2}, None
        self.probe_seconds, self.cpu = 0.0, {}
        self.failing_restarts = 0
        self.calls = []
        self.recorded = None

    def is_running(self):
        return self.running

    def exit_code(self):
        return None if self.running else -9

    def probe(self, timeout):
        self.calls.append("probe")
        time.sleep(min(timeout, self.probe_seconds))
        if self.probe_seconds > timeout:
            raise TimeoutError
        return self.problem

    def cpu_seconds(self, pid):
        return self.cpu.get(pid, 0.0)

    def instance_processes(self):
        return set(self.instances)

    def forget_dead_clients(self):
        return 0

    def record(self, restarts):
        self.recorded = restarts

    def kill(self):
        self.calls.append("kill")
        self.running = False

    def start(self):
        self.calls.append("start")
        if self.failing_restarts:
            self.failing_restarts -= 1
            msg = "can't start"
            raise ServiceError(msg)
        self.running, self.instances, self.problem = True, {5, 6}, None

    def wait_until_ready(self, timeout, is_stopping):
        self.calls.append("wait")


FAST = WatchOptions(period=0.001, probe_period=0.0, hang_timeout=0.3, first_backoff=0.001, last_backoff=0.002)


def watch_until_well(server, break_it):
    dog = Watchdog(server, FAST)
    assert dog.look() is None
    server.calls.clear()
    break_it()
    thread = threading.Thread(target=dog.run)
    thread.start()
    for _ in range(2000):
        if dog.n_restarts and dog.problem is None:
            break
        thread.join(0.002)
    dog.stop()
    thread.join(5)
    assert not thread.is_alive()
    return dog


def test_dead_instance_is_replaced():
    server = FakeServer()
    dog = watch_until_well(server, lambda: server.instances.discard(2))
    assert dog.n_restarts == server.recorded == 1
    assert server.calls[:4] == ["kill", "start", "wait", "probe"]


def test_instance_that_answers_with_errors_is_replaced():
    server = FakeServer()
    dog = watch_until_well(server, lambda: setattr(server, "problem", "status 500"))
    assert dog.n_restarts == 1


def run_for(server, seconds, meanwhile):
    """Watch for a while; `meanwhile` is called often."""
    dog = Watchdog(server, FAST)
    thread = threading.Thread(target=dog.run)
    thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        meanwhile()
        time.sleep(0.01)
    dog.stop()
    server.probe_seconds = 0.0
    thread.join(10)
    return dog


def test_busy_instances_are_left_alone():
    """No answer comes for three times as long as an idle one may take, but processor time is used."""
    server = FakeServer()
    server.probe_seconds = 1.0
    dog = run_for(server, 0.9, lambda: server.cpu.update({pid: time.monotonic() for pid in server.instances}))
    assert dog.n_restarts == 0
    assert server.calls == ["probe"]


def test_instance_that_hangs_is_killed_and_replaced():
    server = FakeServer()
    server.probe_seconds = 1.0
    dog = run_for(server, 0.9, lambda: server.cpu.update({1: time.monotonic()}))
    assert dog.n_restarts == 1
    assert server.calls[:3] == ["probe", "kill", "start"]


def test_idle_instances_are_left_alone():
    server = FakeServer()  # probes are answered, nothing uses processor time
    dog = run_for(server, 0.9, lambda: None)
    assert dog.n_restarts == 0


def test_one_wrong_answer_is_no_reason():
    server, answers = FakeServer(), iter(["status 503"])
    server.probe = lambda timeout: next(answers, None)
    assert run_for(server, 0.2, lambda: None).n_restarts == 0


def test_dead_server_is_started_again():
    server = FakeServer()
    dog = watch_until_well(server, lambda: setattr(server, "running", False))
    assert dog.n_restarts == 1
    assert server.calls[:4] == ["kill", "start", "wait", "probe"]


def test_restarts_that_fail_are_repeated():
    server = FakeServer()
    server.failing_restarts = 2
    dog = watch_until_well(server, server.instances.clear)
    assert dog.n_restarts == server.recorded == 3
