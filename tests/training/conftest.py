"""The fixture `toy`."""

from toy_task import toy

__all__ = ["toy"]
