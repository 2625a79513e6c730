"""What can be set about any network."""

from aimback.core.checks import MOST_ROWS, MOST_STEPS, check_whole

ACTIVATIONS = ("tanh", "silu", "gelu", "softplus", "relu")
DTYPES = ("float32", "float64")
MATMUL_PRECISIONS = ("highest", "high", "medium")


def check_size(hidden_width: int, hidden_layers: int) -> None:
    """Raises `UserError` unless a network of this size can be built."""
    check_whole(1, 65_536, hidden_width=hidden_width)
    check_whole(0, 256, hidden_layers=hidden_layers)


def check_length(batch_size: int, max_epochs: int, patience: int) -> None:
    """Raises `UserError` unless a training of this length can come to an end."""
    check_whole(1, MOST_ROWS, batch_size=batch_size)
    check_whole(1, MOST_STEPS, max_epochs=max_epochs)
    check_whole(0, MOST_STEPS, patience=patience)
