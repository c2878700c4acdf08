"""The served models: the folder of checkpoints, the registry of versions with those in memory, and the watcher."""
