"""Where a gateway may send a customer: its own hosts, and nowhere else."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

#: What an address is made of; with anything else in it, two readers may see two hosts.
_ADDRESS: Final = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,2000}")


class PageHosts:
    """The hosts of a gateway's pages.

    Args:
        domain: Pages are at this domain and those below it, over https only.
        own_urls: Pages may also be at the origins of these, over the same scheme: where the
            gateway is configured to be, which may be a simulator, and where we are.
    """

    def __init__(self, domain: str, *own_urls: str) -> None:
        self._domain = domain
        self._origins = {urlsplit(url)[:2] for url in own_urls}

    def has(self, url: str) -> bool:
        """Tell whether a page is at one of them."""
        if _ADDRESS.fullmatch(url) is None:
            return False
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            return False
        is_below = host == self._domain or host.endswith(f".{self._domain}")
        return parts[:2] in self._origins or (parts.scheme == "https" and is_below)
