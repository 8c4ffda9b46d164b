"""What is run to make parts of this repository, and by nobody else."""
