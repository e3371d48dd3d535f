"""Dictionaries in repositories of the hub: a cache on disk, and a hub on loopback."""

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants
import pytest
import torch

from sae.architectures.relu import ReluAutoencoder
from sae.errors import UserError
from sae.formats import load_dictionary
from sae.formats.hub import HubPlace, locate, parse
from sae.formats.saelens import SaeMetadata, save_saelens

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/saes"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _repository(root: Path) -> None:
    for name in ("layer_3", "layer_4"):
        generator = torch.Generator().manual_seed(len(name))
        tensors = [torch.randn(shape, generator=generator) for shape in [(6, 4), (6,), (6, 4), (4,)]]
        save_saelens(root / name, ReluAutoencoder(*tensors, pre_encoder_bias=True), SaeMetadata(subject=name))
    (root / "README.md").write_text("about")


@pytest.fixture
def hub(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub on loopback with one repository; the paths that were asked of it."""
    root, asked = tmp_path / "repository", list[str]()
    _repository(root)
    files = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            api = f"/api/models/{REPOSITORY}"
            if path.startswith(f"{api}/revision/"):
                siblings = [{"rfilename": name} for name in files]
                self._send(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode())
            elif path.startswith(f"{api}/tree/"):
                tree = [{"type": "file", "path": name, "size": len(body), "oid": "0"} for name, body in files.items()]
                self._send(json.dumps(tree).encode())
            elif path.startswith(f"/{REPOSITORY}/resolve/") and (name := path.split("/", 5)[5]) in files:
                self._send(files[name])
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ("hf:a/b", HubPlace("a/b", "", None)),
        ("hf:a/b/c", HubPlace("a/b", "c", None)),
        ("hf:a/b/c/d.e/ae.pt@v1.0", HubPlace("a/b", "c/d.e/ae.pt", "v1.0")),
        ("hf:a/b@refs/pr/1", HubPlace("a/b", "", "refs/pr/1")),
    ],
)
def test_specs_have_a_repository_a_path_and_a_revision(spec: str, place: HubPlace) -> None:
    """The last two may be missing."""
    assert parse(spec) == place


@pytest.mark.parametrize("spec", ["hf:", "hf:a", "hf:a/b/../c", "hf:a/b@", "hf:a/b c"])
def test_malformed_specs_are_refused(spec: str) -> None:
    """With the form that is right."""
    with pytest.raises(UserError, match="hf:ORG/REPO"):
        parse(spec)


def test_anything_else_is_a_path() -> None:
    """Without the prefix, nothing is asked of anyone."""
    assert locate("some/where") == Path("some/where")


def test_only_the_dictionary_asked_for_is_fetched(hub: list[str], cache: Path) -> None:
    """Its files come from the hub at the commit of the revision; then they are here, and no network is needed."""
    place = locate(f"hf:{REPOSITORY}/layer_3@main")
    assert load_dictionary(place)[1].subject == "layer_3"
    assert {path.split("/")[-1] for path in hub if "/resolve/" in path} == {"cfg.json", "sae_weights.safetensors"}
    assert not any("layer_4" in path for path in hub)
    assert COMMIT in str(place)
    assert str(place).startswith(str(cache))


def test_a_wrong_path_is_answered_with_what_would_fit(hub: list[str]) -> None:
    """The nearest folder that holds a dictionary."""
    with pytest.raises(UserError, match=r"has no layer_33[\s\S]*Did you mean layer_3\?"):
        locate(f"hf:{REPOSITORY}/layer_33")


def test_a_missing_repository_is_said_to_be_missing(hub: list[str]) -> None:
    """With its name and revision."""
    with pytest.raises(UserError, match="The hub gives no some/thing at v1"):
        locate("hf:some/thing/x@v1")


def test_without_a_network_what_was_fetched_is_found(cache: Path) -> None:
    """A cache as the hub's own library lays it out, by branch or by commit; the rest is refused in plain words."""
    folder = cache / "models--someone--saes"
    _repository(folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for spec in (f"hf:{REPOSITORY}/layer_4", f"hf:{REPOSITORY}/layer_4/cfg.json@{COMMIT}"):
        assert load_dictionary(locate(spec))[1].subject == "layer_4"
    with pytest.raises(UserError, match="the hub cannot be reached"):
        locate(f"hf:{REPOSITORY}/layer_4@v2")
    with pytest.raises(UserError, match="has no layer_5"):
        locate(f"hf:{REPOSITORY}/layer_5")
