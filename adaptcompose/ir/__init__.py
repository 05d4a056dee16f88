"""The intermediate representation: primitives, their placement, and programs of them."""
