"""The commands of ``python -m pytest_glia``: each a module with ``add(subparsers)`` and ``run(args)``."""
