"""Adapters to language models: any OpenAI-compatible endpoint, and a real local one that needs no key and no network."""
