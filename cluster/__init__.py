"""The engine: Ray actors that score a search's candidates. `cluster.session.search` runs one."""
