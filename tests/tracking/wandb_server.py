"""A W&B server on the loopback interface, as far as a run, a sweep and an agent of the real client need it.

It is our reading of the protocol of the client 0.31: it proves that rootflow drives the real client, not
that the service answers the same. A call that it doesn't know is kept in `unknown`, for tests to refuse.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import yaml

API_KEY = "a" * 40


@dataclass
class ReceivedRun:
    """What the client told the server about one run."""

    about: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        config = json.loads(self.about["config"])
        return {key: item["value"] for key, item in config.items() if key != "_wandb"}

    def resume_status(self, name: str) -> dict[str, Any]:
        """What a client that goes on with the run wants to know."""
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "summaryMetrics": json.dumps(self.summary),
            "config": self.about.get("config") or "{}",
            "tags": self.about.get("tags") or [],
            "notes": None,
            "logLineCount": 0,
            "historyLineCount": len(self.history),
            "historyTail": json.dumps([json.dumps(row) for row in self.history[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": {}}),  # without it the run counts as one that never began
        }


@dataclass
class ServedSweep:
    """A grid: each run that an agent asks for gets the next combination."""

    config: dict[str, Any]
    runs: dict[str, dict[str, Any]]
    """By id, the parameters."""
    given_out: int = 0

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        combinations = list(_grid(config["parameters"]))
        return cls(config, {f"run{number}": chosen for number, chosen in enumerate(combinations)})

    def next_command(self) -> dict[str, Any]:
        if self.given_out == len(self.runs):
            return {"type": "exit"}
        run_id, parameters = list(self.runs.items())[self.given_out]
        self.given_out += 1
        args = {key: {"value": value} for key, value in parameters.items()}
        return {"type": "run", "run_id": run_id, "program": self.config["program"], "args": args}


def _grid(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = [
        list(_grid(given["parameters"])) if "parameters" in given else given.get("values") or [given["value"]]
        for given in parameters.values()
    ]
    return (dict(zip(parameters, chosen, strict=True)) for chosen in itertools.product(*choices))


class WandbServer:
    """Serves in a thread from construction to `close`; `refuse` makes it answer 401 to everything."""

    def __init__(self) -> None:
        self.runs: dict[str, ReceivedRun] = {}
        self.sweeps: dict[str, ServedSweep] = {}
        self.unknown: list[str] = []
        self.refuse = False
        server = self

        class Handler(_Handler):
            wandb = server

        self._http = _HTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """Return the data of a GraphQL operation, None for one that isn't known."""
        name = str(given.get("name") or given.get("run") or "")
        entity = {"id": "1", "name": "tester", "organization": {"coreWeaveOrganizationId": None}}
        project = {"id": "1", "name": "rootflow", "entity": entity}
        match operation:
            case "Viewer":
                return {"viewer": {"id": "1", "entity": "tester", "flags": "{}", "teams": {"edges": []}}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "OrganizationCoreWeaveOrganizationID":
                return {"entity": entity}
            case "RunResumeStatus":
                known = self.runs.get(name)
                return {"model": {**project, "bucket": known.resume_status(name) if known else None}}
            case "UpsertBucket":
                is_new = name not in self.runs
                run = self.runs.setdefault(name, ReceivedRun())
                run.about |= {key: value for key, value in given.items() if value is not None}
                bucket = {
                    "id": name,
                    "name": name,
                    "displayName": name,
                    "project": project,
                    "historyLineCount": len(run.history),
                }
                return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}
            case "CreateRunFiles":
                files = [
                    {"name": file, "uploadUrl": f"{self.url}/put/{name}/{file}"} for file in given["files"]
                ]
                return {"createRunFiles": {"runID": name, "uploadHeaders": [], "files": files}}
            case "UpsertSweep":
                name = f"sweep{len(self.sweeps)}"
                self.sweeps[name] = ServedSweep.of(yaml.safe_load(given["config"]))
                return {
                    "upsertSweep": {
                        "sweep": {"name": name, "project": project},
                        "configValidationWarnings": [],
                    }
                }
            case "SweepWithRuns":
                name = given["sweep"]
                sweep = {"id": name, "name": name, "state": "RUNNING", "runs": {"edges": []}}
                return {"project": {"sweep": {**sweep, "config": yaml.safe_dump(self.sweeps[name].config)}}}
            case "CreateAgent":
                return {"createAgent": {"agent": {"id": given["sweep"]}}}
            case "Heartbeat":
                is_busy = any(json.loads(given.get("runState") or "{}").values())
                commands = [] if is_busy else [self.sweeps[given["id"]].next_command()]
                return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}
        self.unknown.append(operation)
        return None

    def receive(self, name: str, stream: dict[str, Any]) -> None:
        """Take what the file stream of a run brings."""
        run = self.runs[name]
        for file, part in (stream.get("files") or {}).items():
            rows = (
                [json.loads(line) for line in part["content"]] if file.endswith((".json", ".jsonl")) else []
            )
            if file == "wandb-history.jsonl":
                run.history[part["offset"] :] = rows
            elif file == "wandb-summary.json":
                run.summary = rows[-1]
        if stream.get("complete"):
            run.exit_code = stream["exitcode"]


class _HTTPServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Print nothing: a client that ends in the middle of a request is normal here."""


class _Handler(BaseHTTPRequestHandler):
    wandb: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self._body()
        if self.wandb.refuse:
            self._send({"errors": [{"message": "no such key"}]}, status=401)
        elif self.path == "/graphql":
            request = json.loads(body)
            operation = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
            data = self.wandb.answer(operation[1] if operation else "?", request.get("variables") or {})
            self._send({"data": data} if data else {"errors": [{"message": "unknown"}]})
        elif stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.wandb.receive(stream[1], json.loads(body))
            self._send({})
        else:  # the client's own telemetry
            self._send({})

    def do_PUT(self) -> None:
        _, _, name, file = self.path.split("/", 3)
        self.wandb.runs[name].files[file] = self._body()
        self._send({})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, answer: dict[str, Any], *, status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
