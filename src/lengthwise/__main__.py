"""`python -m lengthwise`, and `torchrun ... -m lengthwise`."""

from lengthwise.cli import main

if __name__ == "__main__":
    main()
