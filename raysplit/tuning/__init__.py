"""Hyperparameters before the sweep: Optuna studies of small models, and the space that goes by what they found."""
