"""One spec.yaml from text to published result: prepare, train, evaluate, report, share."""
