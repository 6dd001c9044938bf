"""Walkthrough by trying all paths: the best one is taken with its nodes, until none is left."""


def _paths_to(node, links, free):
    """Yield (sum, nodes) of all paths that end at a node."""
    yield 0.0, (node,)
    for (inner, outer), weight in links.items():
        if outer == node and inner in free:
            for total, nodes in _paths_to(inner, links, free):
                yield total + weight, (*nodes, node)


def best_paths(links, n_nodes):
    """Return the paths of at least three nodes, best first; `links` has a weight for each (inner, outer)."""
    free, found = set(range(n_nodes)), []
    while True:
        total, nodes = max((path for node in free for path in _paths_to(node, links, free)), default=(0.0, ()))
        if total <= 0:
            return found
        free -= set(nodes)
        if len(nodes) >= 3:
            found.append(nodes)
