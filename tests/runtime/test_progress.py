"""What is reported reaches whoever listens, and nobody else."""

import pytest
from reference.progress_listener import Heard

from acezero_gpu.runtime import StageTimer
from acezero_gpu.runtime.progress import Work, expect, listening, report


def test_a_listener_hears_stages_and_reports_of_its_block():
    heard, inner = Heard(), Heard()
    report(1, 2, "images")  # nobody listens: nothing happens
    with listening(heard):
        expect("seed", [Work("mapping", 3.0, "steps")])
        with StageTimer().stage("mapping"):
            report(1, 4, "steps", loss_px=2.0)
            with listening(inner):
                report(2, 4, "steps")
            report(3, 4, "steps")
    report(4, 4, "steps")
    assert heard.expected == [("seed", [Work("mapping", 3.0, "steps")])]
    assert (heard.stages, heard.ended) == (["mapping"], ["mapping"])
    assert heard.reports == [(1, 4, "steps"), (3, 4, "steps")]
    assert heard.figures[0] == {"loss_px": 2.0}
    assert inner.reports == [(2, 4, "steps")]


def test_after_a_failure_nobody_listens_any_more():
    heard = Heard()
    with pytest.raises(RuntimeError), listening(heard), StageTimer().stage("mapping"):
        raise RuntimeError
    assert heard.ended == ["mapping"]
    report(1, 2, "images")
    assert heard.reports == []
