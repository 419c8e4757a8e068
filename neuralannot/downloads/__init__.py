"""Getting the released files: fetched, resumed, checked, recorded beside their licence.

    from neuralannot.downloads import download, licence_text

    print(licence_text("mscoco-smpl"))
    download("mscoco-smpl", "data/MSCOCO", accept_licence=True)

Nothing here runs on import, and nothing but `download` opens a connection. Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.downloads.getting import Download, download
    from neuralannot.downloads.http import Patience, fetch
    from neuralannot.downloads.ledger import Record, read_ledger
    from neuralannot.downloads.licences import LicenceNotAccepted, licence_text
    from neuralannot.downloads.sources import Companion, Source, companions_of, file_names, source_of
    from neuralannot.downloads.trouble import DownloadError

_ROOMS = {
    "Companion": "sources",
    "Download": "getting",
    "DownloadError": "trouble",
    "LicenceNotAccepted": "licences",
    "Patience": "http",
    "Record": "ledger",
    "Source": "sources",
    "companions_of": "sources",
    "download": "getting",
    "fetch": "http",
    "file_names": "sources",
    "licence_text": "licences",
    "read_ledger": "ledger",
    "source_of": "sources",
}

__all__ = [
    "Companion",
    "Download",
    "DownloadError",
    "LicenceNotAccepted",
    "Patience",
    "Record",
    "Source",
    "companions_of",
    "download",
    "fetch",
    "file_names",
    "licence_text",
    "read_ledger",
    "source_of",
]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)
