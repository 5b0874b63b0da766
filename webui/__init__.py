"""The page and its server. Nothing in here imports torch; the engine is handed in."""
