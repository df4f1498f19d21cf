"""Measure why extrapolation works: the size of delta, the reach of the first order, the plane."""
