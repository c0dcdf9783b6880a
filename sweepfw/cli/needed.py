"""The secrets that a sweep needs, before anything of it is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweepfw.config.secrets import gather

if TYPE_CHECKING:
    from sweepfw.core.model import Spec
    from sweepfw.core.secrets import Secrets


def needed(spec: Spec, *, here: bool) -> Secrets:
    """The values as they are now. SweepError for what is missing. `here`: trials run on this machine."""
    if here:
        from sweepfw.trial.secrets import check_place

        check_place(spec.secrets)
    return gather(spec.secrets)
