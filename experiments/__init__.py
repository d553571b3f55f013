"""What the paper proposes and does beyond SemGAN itself, each in its own files."""
