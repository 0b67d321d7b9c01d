import json

import pytest
import torch

from acezero_gpu.runtime import InputError
from benchmarks.records import Record, read_record
from benchmarks.tables import TABLES, length, markdown_table, reconstruction_table, relocalisation_table
from benchmarks.timing import environment

HEAD = {
    "kind": "reconstruction",
    "command": "python -m benchmarks reconstruction",
    "preset": "fast",
    "environment": environment(torch.device("cpu")),
}
ROW = {
    "set": "fern", "system": "ours", "repeat": 0, "seed": 1, "images": 20, "registered": 19,
    "median_rotation_deg": 0.1234, "median_translation": 0.0123, "median_translation_share": 0.0456,
    "rra_5": 0.9, "rta_5": 0.8, "auc_30": 0.777, "focal_ratio": 1.01, "seconds": 12.3, "unit_m": 1.0,
    "alignment": "aligned", "stages_s": {"mapping": 9.0}, "failed": ["x"], "failure": None,
}  # fmt: skip


def cells(markdown: str, start: str) -> list[str]:
    line = next(line for line in markdown.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_result_is_on_disk_before_the_next(tmp_path):
    record = Record(tmp_path / "new" / "r.json", HEAD, reconstruction_table, overwrite=False)
    for count in (1, 2):
        record.add({**ROW, "set": f"set{count}"})
        on_disk = read_record(tmp_path / "new" / "r.json")
        assert [row["set"] for row in on_disk["rows"]] == [f"set{i + 1}" for i in range(count)]
        table = (tmp_path / "new" / "r.md").read_text()
        assert f"| set{count} | ours |" in table and table == record.markdown()
    assert not list((tmp_path / "new").glob("*.tmp"))


def test_results_are_not_replaced_unasked(tmp_path):
    Record(tmp_path / "r.json", HEAD, reconstruction_table, overwrite=False).add(ROW)
    with pytest.raises(InputError, match="--overwrite"):
        Record(tmp_path / "r.json", HEAD, reconstruction_table, overwrite=False)
    assert len(read_record(tmp_path / "r.json")["rows"]) == 1
    Record(tmp_path / "r.json", HEAD, reconstruction_table, overwrite=True)
    assert read_record(tmp_path / "r.json")["rows"] == []


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', json.dumps({"format": 0, "rows": []})])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=r"r\.json"):
        read_record(tmp_path / "r.json")


def test_a_name_without_json_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.json"):
        Record(tmp_path / "r.md", HEAD, reconstruction_table, overwrite=False)


def test_reconstruction_table_shows_figures_in_their_units():
    second = {**ROW, "system": "pycolmap", "unit_m": None, "median_translation": 0.456, "seconds": 3.21}
    text = reconstruction_table({**HEAD, "rows": [ROW, second]})
    headings = cells(text, "| set | system | images")
    ours = dict(zip(headings, cells(text, "| fern | ours"), strict=True))
    assert ours["rotation"] == "0.123°" and ours["position"] == "1.23 cm" and ours["% of extent"] == "4.56"
    assert ours["registered"] == "19" and ours["AUC@30"] == "77.7" and ours["focal"] == "1.0100"
    other = dict(zip(headings, cells(text, "| fern | pycolmap"), strict=True))
    assert other["position"] == "0.456" and other["seconds"] == "3.2"
    assert "mapping 9.0" in text and "Without a result" not in text and "\\*" not in text


def test_failures_rough_alignments_and_repeats_are_told():
    lost = {**ROW, "registered": 0, "failure": "no start", "median_rotation_deg": None}
    lost |= {"median_translation": None, "median_translation_share": None, "focal_ratio": None}
    rough = {**ROW, "set": "fox", "alignment": "no_consensus"}
    text = reconstruction_table({**HEAD, "rows": [lost, rough, {**rough, "registered": 12, "seed": 2}]})
    assert "- fern, ours, seed 1: no start" in text
    assert cells(text, "| fern | ours")[4] == "none"
    assert cells(text, "| fox | ours")[3:5] == ["15.5 (12–19)", "0.123° \\*"]
    assert "rough at best" in text and "Repeated runs" in text


def test_relocalisation_table_has_a_row_for_each_map():
    row = {
        "set": "kitchen", "map": "given poses", "seed": 1, "mapped": 7, "mapping_images": 8, "images": 5,
        "registered": 4, "median_translation_m": 0.0213, "median_rotation_deg": 0.5, "within_5cm_5deg": 0.8,
        "within_10cm_5deg": 1.0, "any_confidence": {"within_5cm_5deg": 0.9},
        "map_seconds": 9.0, "seconds": 1.5, "stages_s": {}, "failure": None,
    }  # fmt: skip
    alone = {**row, "map": "pictures alone", "map_seconds": None, "median_translation_m": None}
    text = relocalisation_table({**HEAD, "rows": [row, alone]})
    assert cells(text, "| kitchen | given")[2:7] == ["7 of 8", "5", "4", "2.13 cm", "0.500°"]
    assert cells(text, "| kitchen | pictures")[5] == "none"


def test_an_empty_result_has_a_table_for_every_kind():
    for table in TABLES.values():
        assert HEAD["command"] in table({**HEAD, "rows": []})


def test_markdown_cells_cannot_break_the_table():
    lines = markdown_table(["a", "b"], [["x|y", "1"]], words=1).splitlines()
    assert lines == ["| a | b |", "|---|---:|", "| x\\|y | 1 |"]


@pytest.mark.parametrize(
    ("value", "unit_m", "text"),
    [(12.0, 0.001, "1.20 cm"), (1234.0, 0.001, "1.23 m"), (0.01234, None, "0.0123"), (None, 1.0, "none")],
)
def test_lengths(value, unit_m, text):
    assert length(value, unit_m) == text
