"""Why extrapolation works, measured: how small delta is, how far the first order holds, what lies around."""
