"""genai: train, sample and judge any family of generative model, on any kind of data, one way."""

__version__ = "0.1.0"
