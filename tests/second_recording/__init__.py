"""A second set of recorded results, with other sizes than the first, to prove that no test has sizes of its own.

Its numbers do not come from kovqa: `beit3_reference.py`, `nia_set.py` and `tests/models/vlm/llava_reference.py` are the
originals' arithmetic written out once more (docs/sources), under the originals' names. They are first shown to give
the first set's recorded numbers, which the originals' own code made; what they then give at other sizes is what the
originals would.
Not in it: a training of LLaVA, and whatever has no size (augmentations, answer lists, indexes), which is copied.
"""
