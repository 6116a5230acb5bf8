"""The library that the commands in `scripts/` share; every module has one subject and imports nothing heavy at the top."""
