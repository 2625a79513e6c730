"""What everybody may import: the problem and its box, the ledger, errors, files, the machine."""
