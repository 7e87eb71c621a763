"""The store on SQLite and PostgreSQL: migrations, changes, what survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import database_url, postgres_server  # noqa: F401  (fixtures)

from guard.store import (
    DEFAULT_TENANT_ID,
    InvalidChangeError,
    NameTakenError,
    NotFoundError,
    RevisionMismatchError,
    Store,
    StoreError,
    Tombstone,
    schema,
)
from guard.store.engine import default_url, open_engine
from guard.store.keys import display_prefix, hash_key, looks_like_ours, new_key
from guard.types import GuardName, GuardToggle, Scope, TargetSpec, TargetToggle, TenantSpec

STEPHEN = TargetSpec(name="Stephen King", aliases=("Richard Bachman",), documents=("He wrote It.\0",))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:  # noqa: F811
    opened = Store.open(database_url)
    yield opened
    opened.close()


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class TestOpening:
    def test_the_migrations_build_what_the_code_expects(self, store: Store) -> None:
        with store.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []

    def test_opening_again_changes_nothing(self, store: Store, database_url: str) -> None:  # noqa: F811
        with store.write() as writer:
            writer.create_target(STEPHEN)
        again = Store.open(database_url)
        assert again.revision() == 1
        again.close()

    def test_processes_that_start_at_once_do_not_race(self, database_url: str) -> None:  # noqa: F811
        code = "import sys; from guard.store import Store; print(Store.open(sys.argv[1]).revision())"
        processes = [run(code, database_url) for _ in range(3)]
        for process in processes:
            output, errors = process.communicate(timeout=120)
            assert (process.returncode, output) == (0, "0\n"), errors

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/lethe"])
    def test_other_databases_are_refused(self, url: str) -> None:
        with pytest.raises(StoreError):
            Store.open(url)

    @pytest.mark.parametrize(("query", "connecting"), [("", "10"), ("?connect_timeout=3", "3")])
    def test_a_postgresql_that_falls_silent_is_given_up(self, query: str, connecting: str) -> None:
        engine = open_engine(f"postgresql://somewhere/lethe{query}")
        seen: dict[str, object] = {}

        @sa.event.listens_for(engine, "do_connect")
        def connect(_dialect: object, _record: object, _positional: object, named: dict[str, object]) -> None:
            seen.update(named)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            engine.connect()
        assert seen["connect_timeout"] == connecting
        assert {"keepalives_idle", "keepalives_interval", "tcp_user_timeout"} <= seen.keys()

    def test_the_default_is_a_file_of_the_user(self) -> None:
        assert default_url().startswith("sqlite:///") and default_url().endswith("lethe/lethe.db")

    def test_sqlite_is_durable_and_checked(self, tmp_path: Path) -> None:
        store = Store.open(f"sqlite:///{tmp_path / 'lethe.db'}")
        with store.engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
        store.close()
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


class TestTargets:
    def test_what_was_written_is_read(self, store: Store) -> None:
        with store.write() as writer:
            written = writer.create_target(STEPHEN)
        with store.read() as reader:
            assert reader.target(written.id) == written
        assert written.id.startswith("tgt_") and written.revision == 1 and written.spec == STEPHEN

    def test_names_are_unique_letter_case_and_spacing_aside(self, store: Store) -> None:
        with store.write() as writer:
            writer.create_target(STEPHEN)
        with pytest.raises(NameTakenError), store.write() as writer:
            writer.create_target(TargetSpec(name="stephen  KING"))
        with store.write() as writer:
            other = writer.create_target(TargetSpec(name="Steven Queen"))
        with pytest.raises(NameTakenError), store.write() as writer:
            writer.update_target(other.id, STEPHEN)

    def test_the_revision_grows_with_every_change_and_with_nothing_else(self, store: Store) -> None:
        with store.write() as writer:
            target = writer.create_target(STEPHEN)
        with store.write() as writer:
            assert writer.update_target(target.id, STEPHEN) == target
        assert store.revision() == 1
        with store.write() as writer:
            changed = writer.update_target(target.id, TargetSpec(name="Stephen"), expected=1)
        assert (changed.revision, store.revision()) == (2, 2)
        assert changed.created_at == target.created_at and changed.updated_at > target.updated_at

    def test_a_change_on_an_old_revision_is_refused(self, store: Store) -> None:
        with store.write() as writer:
            target = writer.create_target(STEPHEN)
        for change in ("update", "delete"):
            with pytest.raises(RevisionMismatchError) as caught, store.write() as writer:
                if change == "update":
                    writer.update_target(target.id, TargetSpec(name="x"), expected=2)
                else:
                    writer.delete_target(target.id, expected=2)
            assert caught.value.actual == 1
        assert store.revision() == 1

    def test_pages_follow_the_order_of_creation(self, store: Store) -> None:
        with store.write() as writer:
            for number in range(5):
                writer.create_target(TargetSpec(name=f"target {number}"))
        with store.read() as reader:
            everything = reader.targets()
            first = reader.targets(limit=2)
            rest = reader.targets(after=first[-1].id)
            assert first + rest == everything and len(everything) == 5
            assert [one.spec.name for one in reader.targets(name="TARGET 3")] == ["target 3"]

    def test_deleting_takes_toggles_and_compiled_parts_along(self, store: Store) -> None:
        with store.write() as writer:
            target, tenant = writer.create_target(STEPHEN), writer.create_tenant(TenantSpec(name="a"))
            writer.put_target_toggle(tenant.id, target.id, TargetToggle(enabled=True))
        store.put_compiled([(target, b"compiled")], "v1")
        with store.write() as writer:
            writer.delete_target(target.id)
        with store.read() as reader:
            assert reader.target_toggles(tenant.id) == []
            with pytest.raises(NotFoundError):
                reader.target(target.id)
        assert store.compiled([target], "v1") == {}
        store.put_compiled([(target, b"too late")], "v1")
        with pytest.raises(NotFoundError), store.write() as writer:
            writer.delete_target(target.id)


class TestTenantsAndKeys:
    def test_deleting_takes_keys_and_toggles_along(self, store: Store) -> None:
        with store.write() as writer:
            tenant, target = writer.create_tenant(TenantSpec(name="a")), writer.create_target(STEPHEN)
            writer.add_key(new_key(Scope.TENANT), Scope.TENANT, tenant.id)
            writer.put_target_toggle(tenant.id, target.id, TargetToggle(enabled=True))
            writer.put_guard_toggle(tenant.id, GuardName.LEAK, GuardToggle())
        with store.write() as writer:
            writer.delete_tenant(tenant.id)
        with store.read() as reader:
            assert reader.keys(tenant.id) == [] and reader.target_toggles(tenant.id) == []
            assert reader.guard_toggles(tenant.id) == []

    def test_the_first_tenant_closes_the_default_one_and_later_ones_leave_it_alone(self, store: Store) -> None:
        with store.write() as writer:
            default = TenantSpec(name="default", anonymous=True)
            writer.create_tenant(default, tenant_id=DEFAULT_TENANT_ID)
        with store.write() as writer:
            writer.create_tenant(TenantSpec(name="a"))
            assert not writer.tenant(DEFAULT_TENANT_ID).spec.anonymous
        with store.write() as writer:
            writer.update_tenant(DEFAULT_TENANT_ID, default)
            writer.create_tenant(TenantSpec(name="b"))
            assert writer.tenant(DEFAULT_TENANT_ID).spec.anonymous

    def test_only_the_default_tenant_can_be_anonymous(self, store: Store) -> None:
        with pytest.raises(InvalidChangeError), store.write() as writer:
            writer.create_tenant(TenantSpec(name="a", anonymous=True))
        with store.write() as writer:
            tenant = writer.create_tenant(TenantSpec(name="a"))
        with pytest.raises(InvalidChangeError), store.write() as writer:
            writer.update_tenant(tenant.id, TenantSpec(name="a", anonymous=True))

    def test_keys_are_kept_as_hashes_only(self, store: Store) -> None:
        key = new_key(Scope.ADMIN)
        with store.write() as writer:
            record = writer.add_key(key, Scope.ADMIN, None)
        assert record.hash == hash_key(key) and key not in repr(record) and record.prefix == display_prefix(key)
        secret = key.removeprefix("lethe-admin-")
        with store.engine.connect() as connection:
            dump = repr([connection.execute(sa.select(table)).all() for table in schema.metadata.sorted_tables])
        assert secret not in dump and looks_like_ours(key) and len(secret) >= 43

    def test_a_key_belongs_to_a_tenant_or_to_admins_and_is_used_once(self, store: Store) -> None:
        with store.write() as writer:
            tenant = writer.create_tenant(TenantSpec(name="a"))
            writer.add_key("key", Scope.TENANT, tenant.id)
            for scope, owner, key in (
                (Scope.ADMIN, tenant.id, "x"),
                (Scope.TENANT, None, "x"),
                (Scope.ADMIN, None, "key"),
            ):
                with pytest.raises(InvalidChangeError):
                    writer.add_key(key, scope, owner)

    def test_the_last_admin_key_stays(self, store: Store) -> None:
        with store.write() as writer:
            first = writer.add_key("one", Scope.ADMIN, None)
            second = writer.add_key("two", Scope.ADMIN, None)
            writer.revoke_key(first.id, None)
            with pytest.raises(InvalidChangeError):
                writer.revoke_key(second.id, None)
            with pytest.raises(NotFoundError):
                writer.revoke_key(first.id, None)

    def test_the_key_of_the_settings_replaces_the_one_before_and_can_return(self, store: Store) -> None:
        def valid() -> list[str]:
            with store.read() as reader:
                return [key.hash for key in reader.keys(None) if key.revoked_at is None]

        with store.write() as writer:
            writer.add_key("generated", Scope.ADMIN, None)
        for key in ("one", "one", "two", "one"):
            with store.write() as writer:
                writer.replace_settings_key(key)
            assert set(valid()) == {hash_key("generated"), hash_key(key)}

    def test_a_key_that_was_made_otherwise_can_become_the_one_of_the_settings(self, store: Store) -> None:
        def valid() -> set[str]:
            with store.read() as reader:
                return {key.hash for key in reader.keys(None) if key.revoked_at is None}

        with store.write() as writer:
            writer.replace_settings_key("first")
            writer.add_key("made", Scope.ADMIN, None)
        for key in ("made", "made", "last"):
            with store.write() as writer:
                writer.replace_settings_key(key)
            assert valid() == {hash_key(key)}


class TestToggles:
    def test_their_revision_never_recurs(self, store: Store) -> None:
        with store.write() as writer:
            tenant, target = writer.create_tenant(TenantSpec(name="a")), writer.create_target(STEPHEN)
        seen = []
        for _ in range(3):
            with store.write() as writer:
                row = writer.put_target_toggle(tenant.id, target.id, TargetToggle(enabled=True))
                assert writer.target_toggle(tenant.id, target.id) == row
                seen.append(row.revision)
            with store.write() as writer:
                writer.delete_target_toggle(tenant.id, target.id, expected=row.revision)
        assert len(set(seen)) == 3

    def test_revisions_are_checked(self, store: Store) -> None:
        with store.write() as writer:
            tenant, target = writer.create_tenant(TenantSpec(name="a")), writer.create_target(STEPHEN)
            with pytest.raises(RevisionMismatchError):
                writer.put_target_toggle(tenant.id, target.id, TargetToggle(enabled=True), expected=1)
            row = writer.put_guard_toggle(tenant.id, GuardName.LEAK, GuardToggle(enabled=False))
            with pytest.raises(RevisionMismatchError):
                writer.delete_guard_toggle(tenant.id, GuardName.LEAK, expected=row.revision + 1)
            writer.delete_guard_toggle(tenant.id, GuardName.LEAK, expected=row.revision)
            assert writer.guard_toggle(tenant.id, GuardName.LEAK) is None

    def test_they_need_their_tenant_and_target(self, store: Store) -> None:
        with store.write() as writer:
            tenant, target = writer.create_tenant(TenantSpec(name="a")), writer.create_target(STEPHEN)
            for tenant_id, target_id in ((tenant.id, "tgt_none"), ("ten_none", target.id)):
                with pytest.raises(NotFoundError):
                    writer.put_target_toggle(tenant_id, target_id, TargetToggle(enabled=True))


class TestFollowing:
    def test_only_what_changed_is_read(self, store: Store) -> None:
        with store.write() as writer:
            tenant = writer.create_tenant(TenantSpec(name="a"))
            old, doomed = writer.create_target(TargetSpec(name="old")), writer.create_target(TargetSpec(name="doomed"))
        known = store.revision()
        with store.write() as writer:
            new = writer.create_target(TargetSpec(name="new"))
            writer.delete_target(doomed.id)
            row = writer.put_target_toggle(tenant.id, old.id, TargetToggle(enabled=True))
        with store.read() as reader:
            changes = reader.changes_since(known)
            everything = reader.changes_since(0)
        assert changes.targets == (new,) and changes.target_toggles == (row,) and changes.tenants == ()
        assert changes.deleted == (Tombstone("target", doomed.id),) and changes.revision == known + 1
        assert {target.id for target in everything.targets} == {old.id, new.id} and everything.deleted == ()

    def test_a_failed_change_leaves_no_trace(self, store: Store) -> None:
        with pytest.raises(RuntimeError), store.write() as writer:
            writer.create_target(STEPHEN)
            raise RuntimeError
        assert store.revision() == 0
        with store.read() as reader:
            assert reader.targets() == []

    def test_concurrent_writers_lose_nothing(self, store: Store) -> None:
        def register(worker: int) -> None:
            for number in range(10):
                with store.write() as writer:
                    writer.create_target(TargetSpec(name=f"{worker} {number}"))

        threads = [threading.Thread(target=register, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with store.read() as reader:
            assert (reader.revision(), len(reader.targets())) == (40, 40)

    def test_a_reader_sees_one_moment(self, store: Store) -> None:
        with store.read() as reader:
            before = reader.revision()
            with store.write() as writer:
                writer.create_target(STEPHEN)
            assert reader.revision() == before and reader.targets() == []


class TestCompiled:
    def test_it_is_kept_by_revision_and_fingerprint(self, store: Store) -> None:
        with store.write() as writer:
            target = writer.create_target(STEPHEN)
        store.put_compiled([(target, b"one")], "v1")
        store.put_compiled([(target, b"two")], "v2")
        store.put_compiled([(target, b"three")], "v1")
        assert store.compiled([target], "v1") == {target.key: b"three"}
        assert store.compiled([target], "v2") == {target.key: b"two"}
        with store.write() as writer:
            changed = writer.update_target(target.id, TargetSpec(name="x"))
        assert store.compiled([changed], "v1") == {}
        store.put_compiled([(changed, b"four")], "v1")
        assert store.compiled([target, changed], "v1") == {changed.key: b"four"}
        assert store.revision() == 2

    def test_it_joins_a_change_under_way(self, store: Store) -> None:
        with store.write() as writer:
            target = writer.create_target(STEPHEN)
            store.put_compiled([(target, b"one")], "v1")
        assert store.compiled([target], "v1") == {target.key: b"one"}


def test_everything_survives_kill_9(database_url: str) -> None:  # noqa: F811
    code = """
import sys, time
from guard.store import Store
from guard.types import TargetSpec
store = Store.open(sys.argv[1])
for number in range(1000):
    with store.write() as writer:
        writer.create_target(TargetSpec(name=f"target {number}"))
    print(number, flush=True)
"""
    process = run(code, database_url)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    store = Store.open(database_url)
    with store.read() as reader:
        names = {target.spec.name for target in reader.targets(limit=1000)}
        assert {f"target {number}" for number in told} <= names
        assert reader.revision() == len(names)
    store.close()
