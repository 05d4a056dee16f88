"""From a pinned graph to a program of primitives: lowering, passes, plans. No torch."""
