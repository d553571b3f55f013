"""Notebooks with exercises, and what they need: the builder, checks of answers, right answers."""
