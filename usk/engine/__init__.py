"""Engines that run the units of a job: in this process, in worker processes of this machine, or on a Ray cluster."""
