"""The reference of all settings: docs/settings.md, and JSON Schemas for editors."""
