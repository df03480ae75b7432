"""The torture test: a plan, the world that suffers it, the facts that are left, and who judges them."""
