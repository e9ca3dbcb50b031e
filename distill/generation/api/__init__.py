"""Teachers behind an OpenAI-compatible endpoint: client, live and batch queries, capabilities, rate limits."""
