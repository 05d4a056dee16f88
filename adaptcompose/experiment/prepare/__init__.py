"""From a checked spec to a run that is ready: names resolved, data located, pins locked."""
