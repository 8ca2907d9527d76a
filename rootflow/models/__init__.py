"""Models for small images and tables: plain modules, which work the same without rootflow."""
