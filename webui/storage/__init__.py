"""What the store is made of: its file, its rows, its servers, and what happens to damage."""
