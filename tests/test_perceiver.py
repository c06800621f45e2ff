"""The network: published parameter counts, and a slow reference written without torch's layers."""

from __future__ import annotations
