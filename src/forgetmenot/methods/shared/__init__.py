"""Shared parts of the methods: the protocol and helpers of its hooks. No file here is a method."""
