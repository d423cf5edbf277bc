"""Who does the units of a job: this process, several on this machine, or part K of N on any machine."""
