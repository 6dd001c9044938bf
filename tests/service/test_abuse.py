"""Good clients beside bad ones: garbage in every field, cancelled, late and broken calls."""

import time

import pytest

from studies.service_abuse import BadClients, GoodClients
from tests.service.test_concurrency import counters

pytest.importorskip("tritonclient")

SECONDS = 8.0
N_EACH = 4
LEAST_ANSWERS, LEAST_DEEDS = 40, 20


def test_good_clients_do_not_notice_bad_ones(server):
    """Formerly one request with a parameter of the wrong type failed the whole batch it was in."""
    before, instances = counters(server), server.instance_processes()
    ports = server.ports._asdict()
    good, bad = GoodClients(ports, N_EACH, retries=0), BadClients(ports, N_EACH, seed=3)
    time.sleep(SECONDS)
    bad.stop()
    good.stop()
    after = counters(server)
    assert good.errors == []
    assert good.n_wrong == 0
    assert good.n_answers > LEAST_ANSWERS
    assert all(n > LEAST_DEEDS for n in bad.done.values()), bad.done
    assert len(bad.done) == 6
    assert server.instance_processes() == instances
    assert after["traccc_py_refused_total"] > before["traccc_py_refused_total"]
    assert after["traccc_py_failed_total"] == before["traccc_py_failed_total"]
    assert server.probe(10) is None
