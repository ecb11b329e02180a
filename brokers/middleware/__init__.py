"""What happens around an actor's run: one class a file, listed in their order in `brokers.broker.default_middleware`."""
