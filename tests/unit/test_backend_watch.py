"""The watchdog with a server whose faults the test decides on."""

import threading
import time
from dataclasses import replace

from traccc_py.backend.watch import Watchdog, WatchOptions
from traccc_py.errors import ServiceError


class FakeServer:
    """A server whose faults the test decides on."""

    def __init__(self):
        self.running, self.instances, self.problem = True, {1, 2}, None
        self.problem_after_start = None
        self.ended = threading.Event()  # which wakes who waits for the end of a process
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

    def wait_for_an_end(self, instances, seconds):
        if self.ended.wait(seconds):
            self.ended.clear()

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
        self.started = time.monotonic()
        if self.failing_restarts:
            self.failing_restarts -= 1
            msg = "can't start"
            raise ServiceError(msg)
        self.running, self.instances, self.problem = True, {5, 6}, self.problem_after_start
        self.probe_seconds = 0.0

    def wait_until_ready(self, timeout, is_stopping):
        self.calls.append("wait")


FAST = WatchOptions(
    period=0.001, probe_period=0.0, hang_timeout=0.3, error_timeout=0.1, first_backoff=0.001, last_backoff=0.002
)


def watch_until_well(server, break_it, options=FAST):
    dog = Watchdog(server, options)
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
    assert server.calls[:3] == ["kill", "start", "wait"]


def test_the_end_of_an_instance_is_not_noticed_at_the_next_look_only():
    server, patient = FakeServer(), replace(FAST, period=3.0)

    def end():
        server.instances.discard(2)
        server.ended.set()

    begin = time.monotonic()
    assert watch_until_well(server, end, patient).n_restarts == 1
    assert server.started - begin < 2


def test_instance_that_answers_with_errors_is_replaced():
    server = FakeServer()
    dog = watch_until_well(server, lambda: setattr(server, "problem", "status 500"))
    assert dog.n_restarts == 1


def run_for(server, seconds, meanwhile, options=FAST):
    """Watch for a while; `meanwhile` is called often."""
    dog = Watchdog(server, options)
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


def test_some_wrong_answers_are_no_reason():
    server, answers = FakeServer(), iter(["status 503"] * 3)
    server.probe = lambda timeout: next(answers, None)
    assert run_for(server, 0.5, lambda: None, replace(FAST, error_timeout=100.0)).n_restarts == 0
    assert next(answers, None) is None


def test_wrong_answers_after_a_restart_do_not_restart_it_at_once():
    server, patient = FakeServer(), replace(FAST, error_timeout=100.0)
    server.problem_after_start = "status 500"
    assert watch_until_well(server, server.instances.clear, patient).n_restarts == 1


def test_restarts_that_do_not_help_are_repeated_less_and_less_often():
    server, impatient = FakeServer(), replace(FAST, error_timeout=0.0, first_backoff=100.0, last_backoff=100.0)
    server.problem = server.problem_after_start = "status 500"
    assert run_for(server, 0.5, lambda: None, impatient).n_restarts == 2


def test_a_good_answer_ends_the_counting_of_restarts():
    server, impatient = FakeServer(), replace(FAST, first_backoff=100.0, last_backoff=100.0)
    dog = run_for(server, 0.5, lambda: server.probe_seconds or server.instances.clear(), impatient)
    assert dog.n_restarts > 2


def test_dead_server_is_started_again():
    server = FakeServer()
    dog = watch_until_well(server, lambda: setattr(server, "running", False))
    assert dog.n_restarts == 1
    assert server.calls[:3] == ["kill", "start", "wait"]


def test_restarts_that_fail_are_repeated():
    server = FakeServer()
    server.failing_restarts = 2
    dog = watch_until_well(server, server.instances.clear)
    assert dog.n_restarts == server.recorded == 3


def test_the_first_repeat_comes_at_once():
    server = FakeServer()
    server.failing_restarts = 1
    dog = watch_until_well(server, server.instances.clear, replace(FAST, first_backoff=100.0, last_backoff=100.0))
    assert dog.n_restarts == 2
