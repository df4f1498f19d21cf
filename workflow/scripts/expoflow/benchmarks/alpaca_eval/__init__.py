"""AlpacaEval 2.0: win rates against reference outputs, raw and length-controlled."""
