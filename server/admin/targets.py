"""Routes for forget targets."""

from __future__ import annotations

from fastapi import APIRouter, Response

from classifiers.instruction import understand
from guard.compile import questions
from guard.store import Writer
from guard.types import ForgetTarget, Mode, TargetSpec
from server.admin.context import AdminContext, After, DryRun, IfMatch, Limit, NameFilter, TargetId, set_etag
from server.admin.schemas import Page, TargetIn, TargetOut, TargetPatch, TargetSummary, Understanding

#: Questions that are shown of what will be asked.
_SHOWN = 6


def build(context: AdminContext) -> APIRouter:
    """The routes under ``/targets``."""
    router = context.router("targets")

    @router.post("/targets", status_code=201, summary="Register a target")
    async def create_target(wanted: TargetIn, response: Response, dry_run: DryRun = False) -> TargetOut:
        """Register something to be forgotten. The name alone is enough.

        With an `instruction` in plain words in place of the name, the answer says what was `understood`, and the target
        is in `monitor` mode until it is confirmed.

        In force on this process when the call returns, and on every other within a poll interval: for those tenants
        that have it enabled, or for all with `all_tenants`. Names are unique, letter case aside. A dry run answers 200.
        """
        spec = wanted.spec()
        context.check_action(spec.action)
        target = await context.write(lambda writer: writer.create_target(spec), dry_run=dry_run)
        if dry_run:
            response.status_code = 200
        set_etag(response, target.revision)
        return TargetOut.of(target, dry_run=dry_run, understood=_understanding(wanted, target))

    @router.post("/targets/{target_id}/confirm", summary="Enforce a target that was asked for in plain words")
    async def confirm_target(target_id: TargetId, response: Response, if_match: IfMatch = None) -> TargetOut:
        """Set the target's mode to `enforce`. Doing it again changes nothing."""
        expected = context.expected(if_match)

        def change(writer: Writer) -> ForgetTarget:
            spec = writer.target(target_id).spec.model_copy(update={"mode": Mode.ENFORCE})
            return writer.update_target(target_id, spec, expected=expected)

        target = await context.write(change)
        set_etag(response, target.revision)
        return TargetOut.of(target)

    @router.get("/targets", summary="List targets")
    async def list_targets(after: After = "", limit: Limit = 100, name: NameFilter = None) -> Page[TargetSummary]:
        """Targets in the order of their registration, without their long texts."""
        targets = await context.read(lambda reader: reader.targets(after=after, limit=limit + 1, name=name))
        page = [TargetSummary.of(target) for target in targets[:limit]]
        return Page(data=page, next=page[-1].id if len(targets) > limit else None)

    @router.get("/targets/{target_id}", summary="Show a target")
    async def get_target(target_id: TargetId, response: Response) -> TargetOut:
        """One target with everything that was said of it."""
        target = await context.read(lambda reader: reader.target(target_id))
        set_etag(response, target.revision)
        return TargetOut.of(target)

    @router.patch("/targets/{target_id}", summary="Change a target")
    async def update_target(
        target_id: TargetId, patch: TargetPatch, response: Response, dry_run: DryRun = False, if_match: IfMatch = None
    ) -> TargetOut:
        """Change the fields that are given (JSON merge patch). Lists are replaced as a whole."""
        expected = context.expected(if_match)

        def change(writer: Writer) -> ForgetTarget:
            spec = TargetSpec.model_validate(patch.merged(writer.target(target_id).spec))
            context.check_action(spec.action)
            return writer.update_target(target_id, spec, expected=expected)

        target = await context.write(change, dry_run=dry_run)
        set_etag(response, target.revision)
        return TargetOut.of(target, dry_run=dry_run)

    @router.delete("/targets/{target_id}", status_code=204, summary="Delete a target")
    async def delete_target(target_id: TargetId, dry_run: DryRun = False, if_match: IfMatch = None) -> None:
        """Remove a target and every tenant's toggle of it: the model may say it again."""
        expected = context.expected(if_match)
        await context.write(lambda writer: writer.delete_target(target_id, expected=expected), dry_run=dry_run)

    return router


def _understanding(wanted: TargetIn, target: ForgetTarget) -> Understanding | None:
    """What was understood of an instruction; None where there was none."""
    if not wanted.instruction:
        return None
    understood = understand(wanted.instruction)
    return Understanding(
        name=target.spec.name,
        aliases=target.spec.aliases,
        scope=target.spec.description,
        kept="" if understood is None else understood.kept,
        questions=questions.on_target(target.spec)[:_SHOWN],
        confirm=f"/v1/guard/targets/{target.id}/confirm",
    )
