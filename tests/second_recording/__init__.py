"""A second set of recorded results, with other sizes than the first, to prove that no test has sizes of its own.

Its numbers do not come from kovqa: `beit3_reference.py` and `nia_set.py` are the originals' arithmetic written out once
more (docs/sources/beit3.md, docs/sources/vqa_nia.md), under the originals' names. They are first shown to give the first
set's recorded numbers, which the originals' own code made; what they then give at other sizes is what the originals would.
"""
