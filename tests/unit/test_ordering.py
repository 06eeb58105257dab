"""In which order elements that need each other can be brought about, checked against trying every order."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from opfs.core.names import ElementId
from opfs.core.ordering import find_cycle, in_order

NAMES = "abcde"
needs = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map(tuple), max_size=3).map(tuple)
graphs = st.dictionaries(st.sampled_from(NAMES), needs, min_size=1)


def element(name):
    return ElementId("net", name)


def needs_in(graph):
    known = {element(name): [[element(other) for other in need] for need in all_] for name, all_ in graph.items()}
    return known.get


def can_be_brought_about(graph, name):
    """By trying: some order of the declared ones gets to `name`, what is not declared being there already."""
    for order in itertools.permutations(graph):
        there = set()
        for each in order:
            if all(any(other in there or other not in graph for other in need) for need in graph[each]):
                there.add(each)
        if name in there:
            return True
    return False


@given(graphs)
def test_a_circle_is_found_exactly_where_no_order_works(graph):
    for name in graph:
        circle = find_cycle(element(name), needs_in(graph))
        assert (circle is None) == can_be_brought_about(graph, name)
        if circle is not None:
            assert circle[0] == circle[-1]
            assert len(set(circle)) == len(circle) - 1
            for one, other in itertools.pairwise(circle):
                assert any(other in need for need in needs_in(graph)(one))


@given(graphs)
def test_everything_comes_after_what_it_needs(graph):
    ids = [element(name) for name in graph]
    ordered = in_order(ids, needs_in(graph))
    assert sorted(ordered) == sorted(ids)
    if all(
        find_cycle(id, needs_in({name: tuple((o,) for n in all_ for o in n) for name, all_ in graph.items()})) is None
        for id in ids
    ):
        for id in ids:
            for need in needs_in(graph)(id):
                for other in need:
                    if other in ids and other != id:
                        assert ordered.index(other) < ordered.index(id)


def test_what_need_not_change_places_stays():
    ids = [element(name) for name in "edcba"]
    assert in_order(ids, needs_in({})) == ids
    assert in_order(ids, needs_in({"c": (("a",),)})) == [element(name) for name in "edacb"]


def test_a_chain_of_thousands_takes_no_time():
    ids = [ElementId("net", str(number)) for number in range(20_000)]
    after = {id: [[before]] for before, id in itertools.pairwise(ids)}
    assert find_cycle(ids[-1], lambda id: after.get(id, [])) is None
    after[ids[0]] = [[ids[-1]]]
    assert len(find_cycle(ids[-1], after.get)) == 20_001
    del after[ids[0]]
    assert in_order(ids[::-1], after.get) == ids
