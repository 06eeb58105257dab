"""How well searches find what people mean: a labelled set, and what is computed of it.

    facts.py       what a change is to the generator: a deed, its subject, why, and how it came out
    inventory.py   names of a plausible host; reasons.py: why people change things, and of what it fails
    containers.py networks.py switches.py software.py    the deeds, by plugin
    life.py        a host's life, made of them from a seed: users, times, messages, failures, drift
    blocks.py      that life as blocks, so that its events go the way of real ones
    phrases.py     how people ask for a kind of deed, by hand; questions.py: questions and labels made of them
    hard.py        questions written by hand one by one, with their answers
    metrics.py     recall, reciprocal rank, discounted gain, and their intervals
    trial.py       the set asked of a real index

The protocol, and what is biased in it, is in docs/design/search-quality.md. Shared by the tests here and scripts/bench.
"""
