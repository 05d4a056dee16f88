"""The catalogue of adapters, `hub_cards/`, and searching it."""
