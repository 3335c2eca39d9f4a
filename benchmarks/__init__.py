"""What is measured beside what one would run instead. `python -m benchmarks [NAME ...]`"""
