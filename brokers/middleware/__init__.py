"""What happens around an actor's run: one class a file, in order in `brokers.broker`."""
