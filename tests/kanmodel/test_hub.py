"""Models go to Hugging Face and come back, through a server of its API on this machine."""

import base64
import json
import os
import subprocess
import sys
from hashlib import sha1
from http.server import BaseHTTPRequestHandler

import pytest
from factories import make_model
from sockets import serving

from kanmodel.hub import NOT_STATED, write_card
from kanmodel.model import Model

pytest.importorskip("huggingface_hub")
COMMIT = "a" * 40
SCRIPT = """
import sys, kanmodel
from pathlib import Path
from service.models.stores import follow
model = kanmodel.load(sys.argv[1])
print(model.push_to_hub("who/load", intended_use="Tests.", limits="Nothing else.", license="apache-2.0"))
again = kanmodel.from_pretrained("who/load")
print(again.name, again.checkpoint == model.checkpoint)
try:
    kanmodel.from_pretrained("who/nothing")
except kanmodel.CheckpointError as error:
    print(error)
served = follow("hf://who/load", Path(sys.argv[2]), 1 << 30)
served.sync()
print(served.problem, [file.name for file in served.folder.iterdir()])
"""


@pytest.fixture
def server():
    """A server of Hugging Face's API: create, preupload, commit, tree and resolve; `files` has what was committed."""
    files, made = {}, []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, content, **headers):
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": len(content), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_POST(self):
            length = self.headers.get("Content-Length")
            if length is None:
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(length))
            if self.path == "/api/repos/create":
                made.append(json.loads(body))
                self.answer(200, {"url": f"http://{self.headers['Host']}/who/load", "id": "who/load"})
            elif "/preupload/" in self.path:
                names = [one["path"] for one in json.loads(body)["files"]]
                self.answer(
                    200, {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
                )
            elif "/commit/" in self.path:
                for line in body.splitlines():
                    one = json.loads(line)
                    if one["key"] == "file":
                        files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
                url = f"http://{self.headers['Host']}/who/load/commit/{COMMIT}"
                self.answer(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})
            else:
                self.answer(200, {})

        def do_GET(self):
            repository, _, name = self.path.partition("/resolve/main/")
            if repository == "/who/load" and name in files:
                tag = sha1(files[name]).hexdigest()
                self.answer(200, files[name], ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
            elif self.path.startswith("/api/models/who/load/tree/"):
                listed = [(name, len(content), sha1(content).hexdigest()) for name, content in files.items()]
                self.answer(200, [{"type": "file", "path": p, "size": n, "oid": oid} for p, n, oid in listed])
            elif self.path.startswith("/api/models/who/load"):
                self.answer(200, {"id": "who/load", "sha": COMMIT, "siblings": []})
            else:
                self.answer(404, b"", X_Error_Code="RepoNotFound")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments):
            pass

    with serving(Handler) as url:
        yield url, files, made


def test_a_model_goes_to_the_hub_and_comes_back(server, tmp_path):
    """The same checkpoint, with a card, which is served too; a repository that is not there is one sentence."""
    url, files, made = server
    Model.of(make_model("head", n_reference=130), "m").save(tmp_path / "m.safetensors")
    environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_x"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "m.safetensors"), str(tmp_path / "served")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"{url}/who/load/commit/{COMMIT}", "load True"] and len(lines) == 4
    assert lines[2].startswith("who/nothing ") and lines[3] == "None ['model.safetensors']"
    assert sorted(files) == ["README.md", "model.safetensors"] and made[0]["name"] == "load"
    assert files["model.safetensors"] == (tmp_path / "m.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert "license: apache-2.0" in card and "## Intended use\n\nTests.\n\n## Limits\n\nNothing else.\n" in card


def test_the_card_says_what_is_known_and_what_is_not():
    """Skill, each driver, and a row of each field of the AI Act."""
    model = Model.of(make_model("head", n_reference=130), "m")
    card = write_card(model)
    assert str(model.skill) in card and model.chain in card
    assert all(f"\n| {row['name']} | {row['verdict']} |" in card for row in model.importance().table())
    assert f"| Provider (Annex IV 1a) | {NOT_STATED} |" in card
    assert f"## Intended use\n\n{NOT_STATED}" in card
