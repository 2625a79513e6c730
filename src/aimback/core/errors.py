"""The one exception that means "a person can mend this": its message is all they need to read."""


class UserError(ValueError):
    """A mistake in what was asked for (a setting, a file, a device), not in the program.

    The message is one line: what was wrong, where, and what is allowed or what to do.
    """


class OverBudgetError(UserError):
    """What was about to be simulated is more than the budget still allows; nothing of it has been."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine, or its GPU, has refused memory."""
    # Of the CPU's, PyTorch tells in words only.
    refused = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
    return refused or type(error).__name__ == "OutOfMemoryError"
