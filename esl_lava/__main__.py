"""`python -m esl_lava` is `esl`: what torchrun starts, which takes a module."""

from esl_lava.cli.app import main

if __name__ == "__main__":
    main()
