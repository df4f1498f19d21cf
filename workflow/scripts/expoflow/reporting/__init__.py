"""Tables, figures, the page, and the words after a run."""
