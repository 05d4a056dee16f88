"""The main job: spec.yaml, data, tasks, training, evaluation, prediction, publishing."""
