import collections
import hashlib

from hypothesis import given
from hypothesis import strategies as st

from camboxes.transforms.doubts.same_bytes import SameBytes

_NAMES = st.text("abc", min_size=1, max_size=4)


def _digest(content):
    return hashlib.sha256(str(content).encode()).hexdigest()


@given(st.dictionaries(_NAMES, st.tuples(st.integers(0, 5), st.sampled_from("xy")), max_size=20), st.randoms())
def test_against_all_in_memory(images, order):
    same, by_content = SameBytes(), collections.defaultdict(list)
    for path in order.sample(sorted(images), len(images)):
        content, said = images[path]
        same.add(_digest(content), path, said)
    for path in sorted(images):
        by_content[images[path][0]].append(path)
    copies = {path: paths[0] for paths in by_content.values() for path in paths[1:]}
    differing = {path: first for path, first in copies.items() if images[path][1] != images[first][1]}
    found = same.found()
    assert (found.images, found.differing) == (len(copies), len(differing))
    assert found.example == (min(copies.items()) if copies else None)
    if differing:
        path, first = min(differing.items())
        assert found.differing_example == ((path, images[path][1]), (first, images[first][1]))
    else:
        assert found.differing_example is None
