"""What a training loop that raysplit did not start tells the live law, and asks it."""
