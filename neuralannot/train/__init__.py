"""Training of annotators. Nothing outside this package imports it."""
