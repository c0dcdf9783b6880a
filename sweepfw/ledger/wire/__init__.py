"""What the ledger's service and its clients have agreed on: messages, forms of values, methods."""
