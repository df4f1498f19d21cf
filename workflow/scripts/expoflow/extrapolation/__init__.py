"""Compute theta2 = theta1 + alpha * (theta1 - theta0) exactly and in constant memory."""
