"""What a gateway counts of its requests: by kind, how long, what timed out, what was refused and why."""

from __future__ import annotations

from cannery.node.gateway.gateway_metrics import render_gateways
from cannery.node.gateway.request_tally import RequestTally
from cannery.node.gateway.tally_page import Tallies, TallyPage
from tests.gateway.conftest import Node
from tests.node.exposition import read_exposition

WHO = ("gateway", "0")


def test_the_text_holds_each_kind_once() -> None:
    page = TallyPage()
    tally = RequestTally(page)
    assert "requests" not in render_gateways(Tallies((page,)), 0)
    for verb, status in (("query", 200), ("query", 504), ("call", 200), ("call", 429), ("call", 503)):
        tally.note(verb, status, 3_000_000)
    tally.note("other", 404, 1)
    tally.note_reject("query")
    tally.note_timeout("call")
    families = read_exposition(render_gateways(Tallies((page,)), 0))
    timeouts = families["cannery_gateway_timeouts_total"].samples
    assert {dict(labels)["verb"]: count for (_, labels), count in timeouts.items()} == {"call": 1, "query": 1}
    refusals = families["cannery_gateway_refusals_total"].samples
    assert {
        (dict(labels)["verb"], dict(labels)["reason"]): count for (_, labels), count in refusals.items()
    } == {
        ("call", "rate"): 1,
        ("call", "busy"): 1,
        ("other", "invalid"): 1,
        ("query", "rejected"): 1,
    }
    seconds = families["cannery_gateway_request_seconds"].samples
    assert seconds["cannery_gateway_request_seconds_count", (WHO, ("verb", "query"))] == 2


def test_a_gateway_counts_rejects_and_what_is_too_late(node: Node) -> None:
    node.query("echo")
    node.query("reject")
    node.script.silent = True
    assert node.query("echo").status_code == 504
    node.script.silent = False
    for method, status in (("echo", 200), ("reject", 200), ("refuse", 200), ("slow", 202)):
        assert node.call(method).status_code == status
    text = node.http.get("/metrics").text
    assert 'cannery_gateway_timeouts_total{gateway="0",verb="query"} 1' in text
    assert 'cannery_gateway_refusals_total{gateway="0",verb="query",reason="rejected"} 1' in text
    assert 'cannery_gateway_refusals_total{gateway="0",verb="call",reason="rejected"} 2' in text
    assert 'cannery_gateway_timeouts_total{gateway="0",verb="call"} 1' in text
