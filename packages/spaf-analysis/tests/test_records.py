import time

import numpy as np

from spaf_analysis.records import Record, own_record


def test_nested_parameters_become_dotted_text():
    stored = {
        "command": "x", "versions": {"numpy": "2"}, "seconds": 3, "peak_rss_mb": 4,
        "parameters": {"optimizer": {"rate": 0.001, "betas": [0.9, 0.99]}, "slides": [{"name": "a"}, {"name": "b"}]},
    }  # fmt: skip
    record = Record.of("pretrain", stored)
    assert record.parameters == {
        "optimizer.rate": "0.001",
        "optimizer.betas": "0.9, 0.99",
        "slides[0].name": "a",
        "slides[1].name": "b",
    }
    assert (record.seconds, record.peak_rss_mb) == (3.0, 4.0)


def test_what_was_not_stored_is_not_made_up():
    record = Record.of("embed", {})
    assert np.isnan(record.seconds)
    assert np.isnan(record.peak_rss_mb)
    assert record.versions == record.parameters == {}


def test_own_record_measures():
    record = own_record("x", {"seed": np.int64(3)}, started=time.perf_counter() - 2)
    assert 2 <= record.seconds < 10
    assert 30 < record.peak_rss_mb < 20_000
    assert record.parameters == {"seed": "3"}
    assert "scanpy" in record.versions
