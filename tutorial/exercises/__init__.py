"""What is right, and which mistakes get a hint: a file for each notebook."""
