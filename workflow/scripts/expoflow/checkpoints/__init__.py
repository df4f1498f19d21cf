"""What a model folder is: headers, weights, packages, adapters, vocabularies; nothing is computed here."""
