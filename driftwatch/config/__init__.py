"""The configuration file: schema, reader and generated reference."""

from driftwatch.config.file import ConfigError, load, load_with_lines
from driftwatch.config.schema import Config, DriftSettings
from driftwatch.config.source import Source

__all__ = ["Config", "ConfigError", "DriftSettings", "Source", "load", "load_with_lines"]
