"""Linked pictures: what the script reads is the table, and in a browser a click reaches the other views."""

import base64
import dataclasses
import json
import re
import shutil
import subprocess

import anndata as ad
import numpy as np
import pytest

from spaf_analysis import ReportOptions, make_report, render_html
from spaf_analysis.report.sections import LinkedSection, linked
from spaf_analysis.report.sections.linked import on_grid

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

# Clicks on the first cell where the tissue shows it, and leaves in the title what the page then says.
CLICK = """<script>addEventListener("load", () => {
  const canvas = document.querySelector('canvas[data-view="tissue"]'), box = canvas.getBoundingClientRect();
  const data = JSON.parse(document.getElementById("linked-data").textContent);
  const places = new Uint16Array(Uint8Array.from(atob(data.places), (c) => c.charCodeAt(0)).buffer);
  const on = (axis) => (14 + (canvas.width - 28) / 65535 * places[axis]) * box.width / canvas.width;
  canvas.setPointerCapture = () => {};
  const umap = document.querySelector('canvas[data-view="umap"]'), before = umap.toDataURL();
  for (const kind of ["pointerdown", "pointerup"])
    canvas.dispatchEvent(new PointerEvent(kind, { clientX: box.left + on(0), clientY: box.top + on(1) }));
  const rows = [...document.querySelectorAll("#linked-cells tbody tr")].map((row) => row.cells[0].textContent);
  const root = document.documentElement;
  root.dataset.rows = JSON.stringify(rows);
  root.dataset.changed = before !== umap.toDataURL();
});</script>"""


@pytest.fixture(scope="module")
def report(stages):
    return make_report(
        stages.embedded, model=stages.model, run=stages.run, build=stages.build,
        options=ReportOptions(), sections=[LinkedSection],
    )  # fmt: skip


def test_data_are_those_of_the_table(stages, report):
    adata, data = ad.read_h5ad(stages.embedded), report["linked"].data
    places = np.frombuffer(base64.b64decode(data["places"]), "<u2").reshape(-1, 2)
    slides = np.frombuffer(base64.b64decode(data["slides_of"]), "<u2")
    back = np.array(data["origins"])[slides] + data["scale"] * places
    expected = adata[data["names"]]
    np.testing.assert_allclose(back, expected.obsm["spatial"], atol=data["scale"])
    transcripts = np.frombuffer(base64.b64decode(data["transcripts"]), "<u4")
    np.testing.assert_array_equal(transcripts, expected.obs["n_transcripts"])
    assert [data["slides"][slide] for slide in slides] == expected.obs["slide"].astype(str).tolist()
    assert (
        len(data["colors"])
        == len(data["clusters_named"])
        > np.frombuffer(base64.b64decode(data["clusters"]), "<u2").max()
    )


def test_more_cells_than_a_page_carries_are_said(stages, monkeypatch):
    monkeypatch.setattr(linked, "MOST_CELLS", 10)
    html = render_html(make_report(
        stages.embedded, model=stages.model, run=stages.run, build=stages.build, sections=[LinkedSection]
    ))  # fmt: skip
    assert "Linked pictures are made of at most 10 cells" in html
    assert "<canvas" not in html


def test_names_cannot_end_the_data(report):
    section = report["linked"]
    hostile = "</script><b>"
    data = section.data | {
        "names": [hostile, *section.data["names"][1:]],
        "slides": [hostile, *section.data["slides"][1:]],
    }
    html = render_html(dataclasses.replace(report, sections=(dataclasses.replace(section, data=data),)))
    assert hostile not in html
    stored = re.search(r'id="linked-data">(.*?)</script>', html, re.S)[1]
    assert json.loads(stored)["names"][0] == hostile


def test_grid_keeps_groups_apart_and_shapes():
    points = np.array([[0.0, 0.0], [100.0, 50.0], [1000.0, 1000.0], [1010.0, 1020.0]])
    steps, origins, scale = on_grid(points, np.array([0, 0, 1, 1]))
    assert steps[0].tolist() == steps[2].tolist() == [0, 0]
    assert steps[1].tolist() == [65535, 32768]
    np.testing.assert_allclose(origins[[0, 0, 1, 1]] + scale * steps, points, atol=scale)
    same, _, one = on_grid(np.ones((3, 2)), np.zeros(3, dtype=int))
    assert one == 1.0
    assert not same.any()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which pip cannot install")
def test_click_on_the_tissue_reaches_umap_and_table(report, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(render_html(report).replace("</body>", CLICK + "</body>"), "utf-8")
    dom = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    names = report["linked"].data["names"]
    assert f'data-rows="[&quot;{names[0]}&quot;]"' in dom
    assert 'data-changed="true"' in dom
    assert re.search(rf"<output[^>]*>1 of {len(names):,} cells chosen", dom)
