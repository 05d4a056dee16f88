"""Drawings of a composition: terminal, Mermaid, DOT, SVG."""
