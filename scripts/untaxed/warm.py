"""Warm start: a server that has imported the heavy libraries once and forks a child per command, so that no job pays for the imports."""


def call(address: str, script: str) -> int | None:
    """Run `script` in the warm server at `address`. Returns its exit code, or None when no server answers."""
    return None
