"""Assembling the server: vLLM's own OpenAI app, with the guarded engine behind it and Lethe's routes beside it."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from vllm import envs
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.launcher import serve_http, setup_server
from vllm.entrypoints.launchers.utils.server_utils import get_uvicorn_log_config

from guard.caller import CALLER
from guard.compile.fitting import build_compiler
from guard.engine import GuardedEngine
from guard.service import GuardService
from sae_features.autoencoder import SparseAutoencoder, check
from server.admin import Fitting, build_router
from server.auth import AuthMiddleware
from server.autoencoders import open_autoencoder, shape_of
from server.health import build_health_router
from server.settings import Settings
from server.tools import ToolMiddleware

logger = logging.getLogger("vllm.lethe")  # below vLLM's logger, so that its format and level apply

#: The routes of vLLM's app that are served. Each generates through ``EngineClient.generate`` or does not touch the
#: model; whatever is not named here (pooling, control, profiling, LoRA loading, raw tokens) is not mounted.
SERVED = frozenset(
    {
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/{response_id}",
        "/v1/responses/{response_id}/cancel",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/tokenize",
        "/detokenize",
        "/health",
        "/metrics",
        "/version",
        "/openapi.json",
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
    }
)


async def build(
    engine: EngineClient,
    service: GuardService,
    args: Namespace,
    settings: Settings,
    autoencoder: SparseAutoencoder | None = None,
) -> FastAPI:
    """The application: authentication, the routes of :data:`SERVED`, the admin API, health and metrics."""
    tasks = await engine.get_supported_tasks()
    guarded = GuardedEngine(engine, service, autoencoder, private_prefix_cache=settings.private_prefix_cache)
    fitting = _fitting(guarded)
    app = build_app(args, tasks, engine.model_config)
    app.router.routes[:] = [route for route in app.router.routes if _path(route) in SERVED]
    app.title, app.state.guard, app.state.fitting = "Lethe", service, fitting
    app.include_router(
        build_router(
            service,
            max_body_bytes=int(settings.max_admin_body_mb * 2**20),
            require_if_match=settings.require_if_match,
            fitting=fitting,
        )
    )
    app.include_router(build_health_router(guarded, service))
    # Innermost, so that CORS preflights need no key and refused requests still show in the HTTP metrics.
    app.user_middleware.append(Middleware(AuthMiddleware, registry=service.registry, settings=settings))
    app.user_middleware.append(Middleware(ToolMiddleware, service=service))  # within, where the caller is known
    # vLLM's SageMaker bootstrap has already built the stack, without ours.
    app.middleware_stack = app.build_middleware_stack()
    await init_app_state(guarded, app.state, args, tasks)
    _separate_stored_responses(app.state)
    if fitting is not None:
        fitting.compiler.start()
    return app


def open_service(settings: Settings) -> GuardService:
    """The service that the settings describe. A generated admin key is shown here, once."""
    service = GuardService.open(
        database_url=settings.database_url,
        admin_key=settings.admin_key,
        encoder=settings.encoder,
        false_alarm_rate=settings.false_alarm_rate,
        default_action=settings.default_action,
        refusal=settings.refusal,
        poll_interval=settings.poll_interval,
        audit_retention_days=settings.audit_retention_days,
    )
    if service.admin_key is not None:
        print(f"Admin key (shown once): {service.admin_key}", file=sys.stderr, flush=True)  # noqa: T201 not for logs
    return service


async def run(args: Namespace, settings: Settings) -> None:
    """Serve until a signal ends it. ``args`` are vLLM's own; see ``server/cli/serve.py``.

    Raises:
        AutoencoderError: the autoencoder cannot be used, or does not fit the model.
        FileNotFoundError: there is no autoencoder where one should be.
    """
    autoencoder = open_autoencoder(settings)
    address, sock = setup_server(args, reuse_port=False)
    service = open_service(settings)
    try:
        async with build_async_engine_client(args) as engine:
            if autoencoder is not None:
                check(autoencoder, shape_of(engine.model_config))
            app = await build(engine, service, args, settings, autoencoder)
            log_config = get_uvicorn_log_config(args)
            logger.info("Lethe is serving on %s", address)
            shutdown = await serve_http(
                app,
                sock=sock,
                enable_ssl_refresh=args.enable_ssl_refresh,
                host=args.host,
                port=args.port,
                log_level=args.uvicorn_log_level,
                access_log=not args.disable_uvicorn_access_log,
                timeout_keep_alive=envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE,
                ssl_keyfile=args.ssl_keyfile,
                ssl_certfile=args.ssl_certfile,
                ssl_ca_certs=args.ssl_ca_certs,
                ssl_cert_reqs=args.ssl_cert_reqs,
                ssl_ciphers=args.ssl_ciphers,
                h11_max_incomplete_event_size=args.h11_max_incomplete_event_size,
                h11_max_header_count=args.h11_max_header_count,
                **({"log_config": log_config} if log_config is not None else {}),
            )
            if app.state.fitting is not None:  # while the engine lives, or jobs would fail instead of going on later
                await app.state.fitting.compiler.close()
        await shutdown
    finally:
        sock.close()
        service.close()


def _fitting(guarded: GuardedEngine) -> Fitting | None:
    """What compiles targets, if the engine can."""
    artifacts, compiler = guarded.means.artifacts, build_compiler(guarded.means)
    return Fitting(compiler, artifacts) if artifacts is not None and compiler is not None else None


def _path(route: BaseRoute) -> str | None:
    return getattr(route, "path", None)


class _OwnedByTenant(dict[Any, Any]):
    """A dictionary in which each tenant sees only what it stored itself."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_owned(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_owned(key), value)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_owned(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_owned(key), default)

    def pop(self, key: Any, *default: Any) -> Any:
        return super().pop(_owned(key), *default)


def _owned(key: object) -> tuple[str, object]:
    return CALLER.get().tenant_id, key


def _separate_stored_responses(state: Any) -> None:
    """``previous_response_id`` of another tenant must be as unknown as one that was never issued."""
    responses = getattr(state, "openai_serving_responses", None)
    if responses is None:
        return
    for name in ("response_store", "msg_store", "event_store", "background_tasks"):
        setattr(responses, name, _OwnedByTenant())
