"""The layers in front of every request, outermost first: paths, connections, guard, page."""
