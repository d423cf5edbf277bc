"""Classifiers: features, models, training and the runs that it leaves."""
