"""What the course's notebooks import: models, tasks, figures, checks."""
