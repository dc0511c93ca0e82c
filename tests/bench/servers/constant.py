"""The most that FastAPI can do: bytes that are there already, one file of a directory for each question.

``python -m tests.bench.servers.constant PORT DIRECTORY``
"""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response


def create_app(directory: Path) -> FastAPI:
    app = FastAPI()
    bodies = {path.name: path.read_bytes() for path in directory.iterdir()}

    @app.get("/{name}")
    async def answer(name: str) -> Response:
        return Response(bodies[name], media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Path(sys.argv[2])), port=int(sys.argv[1]), log_level="warning", access_log=False)
