"""Clients of outside services, one module each; `outcomes` tells what their codes mean."""
