"""The program around the method: its commands, the training loop, the run folder, the reports."""
