"""Work of all kinds on few names, the same for a seed."""

from __future__ import annotations

import random

from syspuffs.layers.ops import FileServer
from syspuffs.native.constants import FREAD, FWRITE, READDIR_PLUS, NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Cred, Vattr, lookup_cn

CRED = Cred(0, 0, (), 1)
FILE = Vattr(Vtype.VREG, 0o644)
DIRECTORY = Vattr(Vtype.VDIR, 0o755)


async def wander(server: FileServer, count: int, seed: int) -> None:
    """Make about `count` operations of all kinds on few names, many of which fail."""
    rng = random.Random(seed)
    root = server.kargs.root.cookie
    names = [b"%d" % n for n in range(8)]
    places = [root]
    for number in range(3):
        made = await server.mkdir(root, lookup_cn(b"d%d" % number, CRED, NameiOp.CREATE), DIRECTORY)
        places.append(made.cookie)
    for _ in range(count // 4):
        place, name = rng.choice(places), rng.choice(names)
        try:
            await _step(server, rng, place, name, places)
        except VfsError:
            pass
    for place in places[1:]:
        server.reclaim(place, 1)


async def _step(
    server: FileServer, rng: random.Random, place: Cookie, name: bytes, places: list[Cookie]
) -> None:
    deed = rng.randrange(10)
    if deed < 2:
        made = await server.create(place, lookup_cn(name, CRED, NameiOp.CREATE), FILE)
        server.reclaim(made.cookie, 1)
        return
    if deed == 2:
        entries, _ = await server.readdir(place, 0, 4096, READDIR_PLUS, CRED)
        for entry in entries:
            if entry.newinfo is not None:
                server.reclaim(entry.newinfo.cookie, 1)
        return
    if deed == 3:
        made = await server.symlink(
            place, lookup_cn(name, CRED, NameiOp.CREATE), Vattr(Vtype.VLNK, 0o777), b"to " + name
        )
        assert await server.readlink(made.cookie, CRED) == b"to " + name
        server.reclaim(made.cookie, 1)
        return
    found = await server.lookup(place, lookup_cn(name, CRED))
    if not found.cookie:
        return
    try:
        if deed == 4:
            await server.remove(place, found.cookie, lookup_cn(name, CRED, NameiOp.DELETE))
            return
        elif deed == 5:
            to = rng.choice(places)
            await server.rename(
                place,
                found.cookie,
                lookup_cn(name, CRED, NameiOp.DELETE),
                to,
                None,
                lookup_cn(name + b"r", CRED, NameiOp.RENAME),
            )
        elif found.vtype == Vtype.VREG:
            await server.open(found.cookie, FREAD | FWRITE, CRED)
            try:
                if deed < 8:
                    data = rng.randbytes(rng.randrange(3000))
                    await server.write(found.cookie, rng.randrange(5000), data, 0, CRED)
                else:
                    await server.read(found.cookie, 0, 10000, 0, CRED)
                await server.fsync(found.cookie, 1, 0, 0, CRED)
            finally:
                server.close(found.cookie, FREAD | FWRITE, CRED)
        await server.getattr(found.cookie, CRED)
    finally:
        server.reclaim(found.cookie, 1)
