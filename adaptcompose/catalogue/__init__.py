"""The catalogue of adapters in `hub_cards/`, and searching it."""
