"""What docs/image-model.md says of figures, fields and routes is what the code says."""

from __future__ import annotations

import re

import pytest
from aiohttp import web

from p2pdist.api.admin_images import add_image_routes
from p2pdist.cli.image_history import DOCKERS, HEADINGS
from p2pdist.oci.sharing import savings
from p2pdist.store.tags import MAX_HISTORY, MAX_RESOLUTIONS, MAX_TAGS
from tests.unit.docs.savings import DOCUMENT, IMAGES, replaced

TEXT = DOCUMENT.read_text()


def test_the_table_of_the_worked_example_is_up_to_date() -> None:
    assert replaced(TEXT) == TEXT, "run: python -m tests.unit.docs.savings"


def test_the_worked_examples_sums_are_those_of_the_text() -> None:
    one = savings(IMAGES, 1)
    assert (one.storage_separate, one.storage_layered) == (531, 181)
    assert "531 MB" in TEXT
    assert "181 MB" in TEXT


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        replaced("nothing here")


def test_every_field_of_a_format_is_named_and_no_other() -> None:
    named = set(re.findall(r"`\.([A-Z]\w+)`", TEXT))
    assert named == set(HEADINGS)
    assert len(DOCKERS) == 6


def test_every_route_is_named() -> None:
    app = web.Application()
    add_image_routes(app, None)  # type: ignore[arg-type]
    paths = {resource.canonical for resource in app.router.resources()}
    assert set(re.findall(r"`GET (/api/v1/[\w/]+)", TEXT)) == paths | {"/api/v1/images"}


def test_the_bounds_of_the_history_are_those_of_the_store() -> None:
    told = " ".join(TEXT.split())
    assert f"the last {MAX_HISTORY} resolutions of a tag" in told
    assert f"{MAX_TAGS:,} tags" in told
    assert f"{MAX_RESOLUTIONS:,} resolutions in all" in told
