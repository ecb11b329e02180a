"""What recurs: jobs that the scheduler sends."""

import actors  # noqa: F401  # composes the process, whichever of its packages is imported first
