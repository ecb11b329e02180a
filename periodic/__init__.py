"""What recurs: jobs that the scheduler sends."""
