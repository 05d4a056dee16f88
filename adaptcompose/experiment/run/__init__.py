"""Training, evaluating and predicting what a prepared run asks for."""
