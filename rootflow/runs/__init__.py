"""The run folder as seen by readers: find, read and list runs, without torch."""
