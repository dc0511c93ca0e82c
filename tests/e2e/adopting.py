"""Somebody with a shop who follows deploy/ADOPT.md on a stack of the tests."""

from tests.unit.adopted.guide import Reader

from .stack import Stack, free_ports


def begun(shop, directory, phase, *, places=None):
    """A stack that is not started, and the reader of the guide who will do that, after steps 1 and 2."""
    (directory / "secrets").mkdir(mode=0o700)  # for step 1 to fill
    stack = Stack(directory, phase)
    port, dagster_port = free_ports(2)
    stack.environment |= {"PORT": port, "DAGSTER_PORT": dagster_port, "ROLLOUT_DIR": str(directory / "rollout")}
    reader = Reader(
        shop.root, stack.secrets, stack.environment, {"127.0.0.1:8000": f"127.0.0.1:{port}", **(places or {})}
    )
    for step in (1, 2):
        reader.follow(step)
    return stack, reader
