"""Write the JSON schema of the configuration for editors; a test fails when it is older than scripts/untaxed/schema.py.

python scripts/write_schema.py
"""

import argparse

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="rules/schemas/config.schema.json", help="the schema file")
    options = parser.parse_args(arguments)

    from untaxed.records import write_json
    from untaxed.schema import schema

    write_json(options.output, schema())


if __name__ == "__main__":
    run_command(main)
