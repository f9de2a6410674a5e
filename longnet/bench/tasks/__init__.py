"""Models trained on tasks that make themselves, and scored at longer lengths too."""
