"""`python -m cli`: the command `fanfare` where only the requirements are installed, as platforms do."""

from cli.main import app

app()
