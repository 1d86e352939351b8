"""Fleets on /metrics: checked, bounded, and no index breaks the page, whatever it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.limits import (
    GATEWAY_FLEET_PAGE_AGE_NS_MAX,
    GATEWAY_FLEET_PAGE_COUNT_MAX,
    GATEWAY_FLEET_QUIET_NS,
    GATEWAY_FLEET_SAMPLE_COUNT_MAX,
)
from cannery.node.gateway.asking import FleetSample, Questions
from cannery.node.gateway.fleet_metrics import FleetMetrics, take_samples
from cannery.node.gateway.siblings import SharedText
from cannery.node.handover import Answered, QueryDone, QueryMessage
from cannery.node.metrics import render_family
from cannery.testing import Node
from tests.gateway.fleets_under_test import HANGS_SOON, Hanging, Honest, NodePort, Sample, Silent, fleet_of
from tests.node.exposition import Family, read_exposition


class Page:
    """The fleets' part of the page of an in-process node, with a clock of the test's own."""

    def __init__(self, node: Node) -> None:
        self.port = NodePort(node)
        self.now_ns = 0
        questions = Questions(self.port, 1.0)
        self.metrics = FleetMetrics(questions, lambda: self.now_ns)

    def read(self) -> dict[str, Family]:
        """Read a page that is not in the cache."""
        self.now_ns += GATEWAY_FLEET_PAGE_AGE_NS_MAX
        return read_exposition(self.text())

    def text(self) -> str:
        return asyncio.run(self.metrics.render())


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(config=HANGS_SOON) as running:
        yield running


def test_no_counter_falls_between_pages_of_two_gateways(node: Node, tmp_path: Path) -> None:
    index = fleet_of(node, Honest, "user_index")
    first, second = Page(node), Page(node)
    for page in (first, second):
        page.metrics._shared = SharedText(tmp_path / "fleets")
    told: list[int] = []
    for count, page in enumerate((first, second, first, second, first)):
        index.tell(Sample("sent_total", "Sent.", [("turn", str(count))], 1))
        # The first page is made, the next ones are within its time; then one is made anew, by the second.
        now_ns = (0, 1, 2, GATEWAY_FLEET_PAGE_AGE_NS_MAX + 3, GATEWAY_FLEET_PAGE_AGE_NS_MAX + 4)[count]
        first.now_ns = second.now_ns = now_ns
        samples = read_exposition(page.text())["cannery_fleet_sent_total"].samples
        told.append(len(samples))
    assert told == [1, 1, 1, 4, 4]


def up(families: dict[str, Family]) -> dict[str, float]:
    return {
        dict(labels)["fleet"]: value for (_, labels), value in families["cannery_fleet_up"].samples.items()
    }


def test_numbers_of_all_fleets_stand_together_under_their_names(node: Node) -> None:
    users, groups = fleet_of(node, Honest, "user_index"), fleet_of(node, Honest)
    for index, count in ((users, 5), (groups, 7)):
        index.tell(Sample("members", "Members by kind.", [("kind", "user")], count))
        index.tell(Sample("top_ups_total", "Grants.", [], 1.5))
    families = Page(node).read()
    members = families["cannery_fleet_members"]
    assert (members.kind, members.help) == ("gauge", "Members by kind.")
    assert {dict(labels)["fleet"]: value for (_, labels), value in members.samples.items()} == {
        "user_index": 5,
        str(groups.id): 7,
    }
    assert families["cannery_fleet_top_ups_total"].kind == "counter"
    assert up(families) == {"user_index": 1, str(groups.id): 1}


def test_an_index_that_hangs_lies_or_is_silent_leaves_the_rest_of_the_page(node: Node) -> None:
    good = fleet_of(node, Honest, "good")
    good.tell(Sample("members", "Members.", [], 1))
    fleet_of(node, Hanging, "hanging")
    fleet_of(node, Silent, "silent")
    page = Page(node)
    assert up(page.read()) == {"good": 1, "hanging": 0, "silent": 0}
    page.port.asked.clear()
    assert up(page.read()) == {"good": 1, "hanging": 0, "silent": 0}
    assert page.port.asked.count("fleet_metrics") == 1, "those that failed are left alone for a while"
    page.now_ns += GATEWAY_FLEET_QUIET_NS
    page.port.asked.clear()
    page.read()
    assert page.port.asked.count("fleet_metrics") == 3


def test_the_page_is_made_once_in_a_few_seconds(node: Node) -> None:
    index = fleet_of(node, Honest, "good")
    page = Page(node)
    page.read()
    index.tell(Sample("members", "Members.", [], 1))
    page.now_ns += GATEWAY_FLEET_PAGE_AGE_NS_MAX - 1
    assert "cannery_fleet_members" not in page.text()
    page.now_ns += 1
    assert "cannery_fleet_members" in page.text()


def test_a_node_that_gives_no_list_says_so_in_a_comment(node: Node) -> None:
    page = Page(node)

    async def refuse(query: QueryMessage) -> QueryDone:
        return QueryDone(0, 0, Answered(b"", 4, f"no {query.method}\ntoday"))

    page.port.ask = refuse  # type: ignore[method-assign]
    text = page.text()
    assert text.startswith("# the fleets are not known: ")
    assert text.count("\n") == 1


def test_no_more_fleets_than_the_page_holds(node: Node) -> None:
    for _ in range(GATEWAY_FLEET_PAGE_COUNT_MAX + 3):
        fleet_of(node, Silent)
    families = Page(node).read()
    assert len(up(families)) == GATEWAY_FLEET_PAGE_COUNT_MAX
    assert families["cannery_fleets"].samples["cannery_fleets", (("state", "left_out"),)] == 3


WRONG = [
    FleetSample("", "", [], 1),
    FleetSample("Members", "", [], 1),
    FleetSample("a b", "", [], 1),
    FleetSample('a{x="1"} 5\nb', "", [], 1),
    FleetSample("up", "", [], 1),
    FleetSample("cannery_fleet_up", "", [], 1),
    FleetSample("a" * 81, "", [], 1),
    FleetSample("a", "", [("fleet", "another")], 1),
    FleetSample("a", "", [("x", "1"), ("x", "2")], 1),
    FleetSample("a", "", [("__name__", "b")], 1),
    FleetSample("a", "", [("le\n", "b")], 1),
    FleetSample("a", "", [(f"l{n}", "") for n in range(9)], 1),
]


@pytest.mark.parametrize("sample", WRONG)
def test_a_sample_that_is_none_is_refused(sample: FleetSample) -> None:
    families: dict[str, object] = {}
    assert take_samples(families, "f", [sample]) == 1  # type: ignore[arg-type]
    assert families == {}


def test_a_series_is_taken_once_and_a_fleet_has_so_many() -> None:
    families: dict[str, object] = {}
    same = [FleetSample("a", "A.", [], 1)] * 3
    many = [FleetSample("b", "B.", [("n", str(n))], n) for n in range(GATEWAY_FLEET_SAMPLE_COUNT_MAX + 10)]
    assert take_samples(families, "f", same + many) == 2 + 11  # type: ignore[arg-type]


texts = st.text(max_size=12) | st.sampled_from(["a", "b_total", "members", "kind", "le"])
samples = st.builds(
    FleetSample, texts, st.text(max_size=300), st.lists(st.tuples(texts, st.text(max_size=200)), max_size=3),
    st.floats() | st.integers(-5, 5).map(float),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(samples, max_size=8), st.lists(samples, max_size=8))
def test_whatever_indexes_tell_a_strict_parser_reads_the_page(
    one: list[FleetSample], other: list[FleetSample]
) -> None:
    families: dict = {}
    take_samples(families, "one", one)
    take_samples(families, "other", other)
    text = "".join(
        render_family(name, "counter" if name.endswith("_total") else "gauge", family.help, family.samples)
        for name, family in sorted(families.items())
    )
    if text:
        read_exposition(text)
