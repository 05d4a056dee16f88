"""Publish a composition with its model card, and pull a published one."""
