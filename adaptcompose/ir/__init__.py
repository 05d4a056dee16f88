"""The intermediate representation: placements, primitives, and programs of them."""
