"""The program around the method: the command line, the training loop, run folders, reports."""
