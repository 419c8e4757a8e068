"""Fitting bodies to joints, one optimisation a body: what the paper compares with, and what refines a
network."""
