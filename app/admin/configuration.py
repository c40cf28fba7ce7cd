"""What operators do with the catalog: see it, have a file checked, have it loaded everywhere."""

from collections.abc import Sequence

from fastapi import Request

from app.admin.audit import Actor, Audit, actor_of, process_actor
from app.admin.errors import CatalogRefused
from app.catalog.errors import CatalogInvalid, Mistake
from app.jobs.catalogs import Catalogs
from app.jobs.stored_catalogs import StoredCatalog
from app.kit.json import JsonObject


class Configuration:
    """Checks and loads catalogs, and writes down who did."""

    def __init__(self, catalogs: Catalogs, audit: Audit, *, process: str) -> None:
        """`process`: what this process is called, which acts when it is signalled."""
        self._catalogs = catalogs
        self._audit = audit
        self._process = process_actor(process)

    async def check(self, request: Request, content: bytes | None) -> tuple[str | None, Sequence[Mistake]]:
        """The version that a content would have, or its mistakes; None is the file of this process.

        Nothing is put in force.
        """
        version: str | None = None
        mistakes: Sequence[Mistake] = ()
        try:
            version = (await self._catalogs.check(content)).version
        except CatalogInvalid as exc:
            mistakes = exc.mistakes
        await self._audit.note(
            request, "config.checked", "catalog", after={"version": version, "mistakes": len(mistakes)}
        )
        return version, mistakes

    async def would_load(self) -> str:
        """The version that a reload would put in force.

        Raises:
            CatalogRefused: the file of this process has mistakes.
        """
        try:
            return (await self._catalogs.check(None)).version
        except CatalogInvalid as exc:
            raise _refused(exc) from exc

    async def reload(self, request: Request) -> StoredCatalog:
        """Load the file of this process, and put it in force in every process.

        Raises:
            CatalogRefused: it has mistakes; the catalog in force stays.
        """
        try:
            return await self._reload(actor_of(request))
        except CatalogInvalid as exc:
            raise _refused(exc) from exc

    async def reload_by_signal(self) -> None:
        """The same, as a signal asks this process for it.

        Raises:
            CatalogInvalid: it has mistakes; the catalog in force stays.
        """
        await self._reload(self._process)

    async def _reload(self, actor: Actor) -> StoredCatalog:
        witness = self._audit.witness(actor, "config.reloaded", subject=_subject, render=stored_document)
        try:
            return await self._catalogs.reload(witness=witness)
        except CatalogInvalid as exc:
            after: JsonObject = {"mistakes": [mistake_document(item) for item in exc.mistakes]}
            await self._audit.note(actor, "config.reload_refused", "catalog", after=after)
            raise


def stored_document(stored: StoredCatalog) -> JsonObject:
    """What the audit log keeps of a catalog."""
    return {"version": stored.version, "generation": stored.generation}


def mistake_document(mistake: Mistake) -> JsonObject:
    """A mistake with its place and its fix."""
    return {
        "line": mistake.line,
        "key": mistake.key,
        "problem": mistake.problem,
        "fix": mistake.fix,
        "message": str(mistake),
    }


def _refused(exc: CatalogInvalid) -> CatalogRefused:
    return CatalogRefused(f"The catalog file has mistakes; the one in force stays.\n{exc}")


def _subject(_stored: StoredCatalog) -> str:
    return "catalog"
