"""Measurements that are more than a test: one module a claim."""
