"""Dilated attention on a GPU beside what a user of PyTorch would pick instead."""
