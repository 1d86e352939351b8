"""A gateway's page of counters: what all processes read, what outlasts one, what begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from cannery.errors import StoreError
from cannery.node.gateway.gateway_metrics import render_gateways, show_gateways
from cannery.node.gateway.request_tally import RequestTally
from cannery.node.gateway.siblings import SharedText, clear_shared, open_siblings, tally_path
from cannery.node.gateway.tally_page import Tallies, TallyPage
from tests.node.exposition import read_exposition

S = 10**9


def open_one(folder: Path, number: int) -> Tallies:
    return open_siblings(folder, 2, number, 100, b"secret").tallies


def test_counters_outlast_their_process_and_gauges_do_not(tmp_path: Path) -> None:
    clear_shared(tmp_path / "shared")
    first, second = (open_one(tmp_path / "shared", number) for number in range(2))
    RequestTally(second.own).note("query", 200, 3_000_000)
    second.own.cell("events_sent_total").add(7)
    second.own.set("connections", 5)
    page = first.pages[1]
    assert list(page.answered("query")) == [(200, 1)]
    assert (page.named("connections"), page.starts) == (5, 1)
    again = open_one(tmp_path / "shared", 1)
    RequestTally(again.own).note("query", 200, 3_000_000)
    assert list(page.answered("query")) == [(200, 2)]
    assert page.durations("query")[1] == 6_000_000
    assert (page.named("events_sent_total"), page.named("connections"), page.starts) == (7, 0, 2)
    clear_shared(tmp_path / "shared")
    assert list(open_one(tmp_path / "shared", 1).own.answered("query")) == []


def test_one_page_tells_of_all_and_who_is_silent(tmp_path: Path) -> None:
    first, second = (open_one(tmp_path / "shared", number) for number in range(2))
    assert [each["is_up"] for each in show_gateways(first, 100 * S)] == [False, False]
    second.own.beat(100 * S)
    for tallies, count in ((first, 2), (second, 3)):
        for _ in range(count):
            RequestTally(tallies.own).note("call", 429, 1)
    first.own.beat(110 * S)
    families, others = (read_exposition(render_gateways(tallies, 110 * S)) for tallies in (first, second))
    for found in (families, others):
        del found["cannery_gateway_process_memory_bytes"]
    assert families == others
    counts = families["cannery_gateway_requests_total"].samples
    assert sum(counts.values()) == 5
    up = families["cannery_gateway_up"].samples
    assert [up["cannery_gateway_up", (("gateway", who),)] for who in ("0", "1")] == [1, 0]
    assert [each["is_up"] for each in show_gateways(first, 110 * S)] == [True, False]


def test_a_page_of_another_version_is_left_out_until_it_is_begun_anew(tmp_path: Path) -> None:
    first = open_one(tmp_path / "shared", 0)
    path = tally_path(tmp_path / "shared", 1)
    path.write_bytes(bytes([1] * 8) + path.read_bytes()[8:])
    families = read_exposition(render_gateways(first, 0))
    assert len(families["cannery_gateway_starts_total"].samples) == 1
    assert families["cannery_gateway_up"].samples["cannery_gateway_up", (("gateway", "1"),)] == 0
    assert show_gateways(first, 0)[1]["starts"] == 0
    RequestTally(open_one(tmp_path / "shared", 1).own).note("call", 200, 1)
    assert len(read_exposition(render_gateways(first, 0))["cannery_gateway_starts_total"].samples) == 2


def test_a_page_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open .*tally: No such file or directory"):
        TallyPage(tmp_path / "absent" / "tally")
    with pytest.raises(StoreError, match=r"cannot make .*shared: No such file or directory"):
        open_one(tmp_path / "absent" / "shared", 0)


def test_a_shared_text_is_whole_or_not_there(tmp_path: Path) -> None:
    text = SharedText(tmp_path / "text")
    assert text.read() is None
    text.write(5, "a\nb\n")
    assert SharedText(tmp_path / "text").read() == (5, "a\nb\n")
    (tmp_path / "text").write_text("no number\n")
    assert text.read() is None
    SharedText(tmp_path / "absent" / "text").write(1, "lost")
