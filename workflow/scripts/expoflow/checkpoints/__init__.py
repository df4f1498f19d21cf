"""Model folders: headers, weights, packages, adapters, vocabularies. Nothing is computed here."""
