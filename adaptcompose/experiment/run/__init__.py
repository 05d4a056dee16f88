"""Run a prepared spec: train, evaluate and predict."""
