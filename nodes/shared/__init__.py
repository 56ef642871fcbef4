"""What all nodes share: schemas from the registry, messages, previews and drawings."""
