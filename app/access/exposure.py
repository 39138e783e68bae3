"""`python -m app.access.exposure`: may the service listen where it is told to?

Exits with 1 and a sentence where anybody on the network could use it. A module to run, so that the
process that starts the others does not load a database for this.
"""

import sys
from ipaddress import ip_address

from app.settings import Settings
from host.environment import read_settings


class Exposed(Exception):
    pass


def check_exposure(settings: Settings) -> None:
    """Raise Exposed where the service would be reached from beyond this machine without any key."""
    if settings.open or not is_exposed(settings):
        return
    from store.access.keys import any_key
    from store.database import open_database

    database = open_database(settings.locations.database_url)
    try:
        if any_key(database):
            return
    finally:
        database.close()
    where = settings.host if not is_loopback(settings.host) else "the proxy of DIFFUSION_PROXIES"
    raise Exposed(
        f"without a key, everybody who can reach {where} could use the service and delete "
        "what is there. Make one (diffusion keys create NAME --scopes admin), listen on 127.0.0.1 "
        "without a proxy, or set DIFFUSION_OPEN=1 where something else guards it"
    )


def is_exposed(settings: Settings) -> bool:
    """Return whether others than this machine's users may reach the service: by itself, or through
    a proxy."""
    return not is_loopback(settings.host) or bool(settings.proxies)


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    try:
        check_exposure(read_settings(Settings))
    except Exposed as error:
        sys.exit(str(error))
