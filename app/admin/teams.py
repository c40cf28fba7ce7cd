"""`/admin/v1/teams`: who pays, and what they may do."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.accounts.records import Team
from app.accounts.service import Accounts
from app.admin.audit import Audit
from app.admin.parameters import CHECKED_ACT, read_fields, read_limits, read_name, read_page, refuse_rest
from app.admin.rendering import listing, team_document
from app.admin.schemas import ADMIN_BEARER, PAGE, NewTeam, TeamChange, TeamObject, answer, body
from app.api.schemas import ERRORS
from app.catalog.current import CurrentCatalog

_FIELDS = ("name", "limits")


def router(accounts: Accounts, catalog: CurrentCatalog, audit: Audit) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/admin/v1/teams",
        tags=["teams and keys"],
        dependencies=[ADMIN_BEARER, CHECKED_ACT],
        responses=ERRORS,
    )

    @routes.post(
        "",
        summary="Create a team",
        status_code=201,
        openapi_extra=body(NewTeam),
        responses=answer(TeamObject, "The new team.", 201),
    )
    async def create(request: Request) -> Response:
        """Create a team."""
        fields = await read_fields(request)
        name = read_name(fields.required_text("name"))
        limits = read_limits(fields.mapping("limits") or {}, catalog.get())
        refuse_rest(fields, *_FIELDS)
        given = {key: value for key, value in limits.items() if value is not None}
        witness = audit.witness(request, "team.created", subject=_id_of, render=team_document)
        team = await accounts.create_team(name, given, witness=witness)
        return JSONResponse(team_document(team), status_code=201)

    @routes.get(
        "",
        summary="List teams, newest first",
        openapi_extra={"parameters": PAGE},
        responses={200: {"description": "A page of teams."}},
    )
    async def search(request: Request) -> Response:
        """List every team."""
        after, limit = read_page(request)
        found, has_more = await accounts.list_teams(after=after, limit=limit)
        return JSONResponse(listing(found, has_more, team_document))

    @routes.get("/{team_id}", summary="Look at a team", responses=answer(TeamObject, "The team."))
    async def show(_request: Request, team_id: str) -> Response:
        """Look at a team."""
        return JSONResponse(team_document(await accounts.find_team(team_id)))

    @routes.patch(
        "/{team_id}",
        summary="Rename a team, or change its limits",
        openapi_extra=body(TeamChange),
        responses=answer(TeamObject, "The team as it is now."),
    )
    async def change(request: Request, team_id: str) -> Response:
        """Rename a team, or change its limits: a limit that is null is lifted, one that is absent stays."""
        fields = await read_fields(request)
        name = fields.text("name")
        limits = fields.mapping("limits")
        refuse_rest(fields, *_FIELDS)
        team = await accounts.change_team(
            team_id,
            name=None if name is None else read_name(name),
            limits=None if limits is None else read_limits(limits, catalog.get()),
            witness=audit.witness(request, "team.changed", subject=_id_of, render=team_document),
        )
        return JSONResponse(team_document(team))

    return routes


def _id_of(team: Team) -> str:
    return team.id
