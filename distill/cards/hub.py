"""Values of a card's front matter in the words of model hubs."""

from collections.abc import Iterable
from typing import Any

# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "gemma")
OTHER_LICENSE = {"license": "other", "license_name": "see-the-sources-below"}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def common_license(licenses: Iterable[str | None]) -> str | None:
    """The license that all sources share if hubs know it, else None: then a person must decide."""
    names = {(license or "").lower() for license in licenses}
    return names.pop() if len(names) == 1 and names <= set(LICENSES) else None


def license_fields(license: str | None) -> dict[str, Any]:
    """The front matter's fields of a license, None for one that hubs do not know."""
    return dict(OTHER_LICENSE) if license is None else {"license": license}


def size_category(num_rows: int) -> str:
    """The size of a data set as hubs name it."""
    return next((name for bound, name in SIZES if num_rows < bound), "n>1M")
