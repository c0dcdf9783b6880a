"""The heart without a world: no clock, no files, no network, no third-party import."""
