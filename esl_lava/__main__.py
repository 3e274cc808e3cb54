"""Run the `esl` command as `python -m esl_lava`, because torchrun starts a module."""

from esl_lava.cli.app import main

if __name__ == "__main__":
    main()
