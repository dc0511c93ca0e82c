"""PostgreSQL behind FastAPI: a pool of connections, prepared statements, and JSON that the database makes.

``python -m tests.bench.servers.postgres PORT SOCKET_DIRECTORY``; runs in the environment of the peers.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI, Response

from tests.bench.questions import QUESTIONS

_CONNECTIONS = 8


def _statement(name: str) -> str:
    question = QUESTIONS[name]
    numbered = {parameter: f"${number}" for number, parameter in enumerate(question.parameters, start=1)}
    numbered["above"] = f"CAST({numbered['above']} AS bigint)"
    return f"SELECT coalesce(json_agg(t), '[]')::text FROM ({question.sql.format(**numbered)}) AS t"


def create_app(socket_directory: str) -> FastAPI:
    statements = {name: _statement(name) for name in QUESTIONS}

    @asynccontextmanager
    async def pool(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(
            host=socket_directory, user="bench", database="postgres", min_size=_CONNECTIONS, max_size=_CONNECTIONS
        ) as app.state.pool:
            yield

    app = FastAPI(lifespan=pool)

    @app.get("/{name}")
    async def answer(name: str, above: int, user: int = 0) -> Response:
        values = {"user": user, "above": above}
        asked = [values[parameter] for parameter in QUESTIONS[name].parameters]
        return Response(await app.state.pool.fetchval(statements[name], *asked), media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[2]), port=int(sys.argv[1]), log_level="warning", access_log=False)
