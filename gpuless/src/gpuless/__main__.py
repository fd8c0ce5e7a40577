"""Print the optional tools that gpuless finds on this machine: `python -m gpuless`."""

from __future__ import annotations

from . import __version__, available


def main() -> None:
    print(f"gpuless {__version__}")
    for tool in available():
        state = tool.found or f"missing: {tool.missing}"
        print(f"  {tool.name:13} {state}\n{'':15} for {tool.purpose}")


if __name__ == "__main__":
    main()
