"""Answers of providers, gateways and self-hosted servers that are not quite what the protocol says, each from a public issue."""
