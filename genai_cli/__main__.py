"""`python -m genai_cli ...` is the same program as `genai ...`."""

from genai_cli.cli import main

if __name__ == "__main__":
    main()
