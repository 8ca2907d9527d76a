"""From YAML files and overrides to one checked `Config`; torch is never imported here."""
