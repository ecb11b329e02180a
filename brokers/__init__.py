"""What carries the messages: the engines, and dramatiq's broker on top of them."""
