"""Tables, figures, pages, and the summary at the end of a run."""
