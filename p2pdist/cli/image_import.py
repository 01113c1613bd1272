"""``p2pdist import``: images that are files on this host, into the running agent's store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from p2pdist.cli.admin_client import AdminClient
from p2pdist.cli.archives.files import Files, open_files
from p2pdist.cli.archives.images import ArchivedBlob, ArchivedImage, read_images
from p2pdist.cli.errors import CommandError
from p2pdist.cli.manage import parse_reference
from p2pdist.cli.options import admin_client, agent_options, json_option, token_header
from p2pdist.cli.output import clean, emit_json, human_bytes
from p2pdist.cli.progress import Show, showing
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference

_ASKED_AT_ONCE = 500


def _reference(context: click.Context, parameter: click.Parameter, value: str | None) -> Reference | None:
    return None if value is None else parse_reference(context, parameter, value)


@click.command(
    "import",
    epilog="""\b
Examples:
  docker save -o app.tar registry.example.com/app:v3 && p2pdist import app.tar
  p2pdist import app.tar --as registry.example.com/app:v3
  skopeo copy docker://nginx:1.27 oci:layout:1.27 && p2pdist import layout --as nginx:1.27
  p2pdist import images.tar.gz --select app:v3 --json
\b
PATH is an OCI layout (directory or tar), or what docker save writes; a tar may be compressed with gzip, bzip2 or xz. The
image is pulled under its name as if a registry had answered with it; one from docker save has a digest of its own, since
its layers are not compressed. Needs root, or the agent's user.""",
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--as", "name", metavar="REF", callback=_reference, help="The name to give it [default: its own]."
)
@click.option(
    "--select", metavar="NAME", help="Only the image that the archive calls so, or has this digest."
)
@json_option
@agent_options
def import_image(
    path: Path,
    name: Reference | None,
    select: str | None,
    as_json: bool,
    admin: str | None,
    config: Path | None,
) -> None:
    """Put an image from files into the store."""
    client = admin_client(admin, config)
    headers = token_header(config)
    try:
        with open_files(path) as files:
            chosen = choose(files, read_images(files), name, select)
            with showing(quiet=as_json) as show:
                rows = [Sender(client, headers, show).send(image, names) for image, names in chosen]
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    except InvalidInputError as error:
        raise CommandError(clean(error)) from error
    if as_json:
        emit_json({"images": rows})
        return
    for row in rows:
        _tell(row)


Chosen = list[tuple[ArchivedImage, tuple[Reference, ...]]]


def choose(files: Files, images: list[ArchivedImage], name: Reference | None, select: str | None) -> Chosen:
    """The images to send, each with the names to give it; raises CommandError that says what there is."""
    listed = ", ".join(clean(image.label) for image in images[:20])
    if select is not None:
        wanted = str(Reference.parse(select)) if _is_reference(select) else select
        images = [image for image in images if _is_called(image, select, wanted)]
        if not images:
            raise CommandError(f"{files.where} holds no image called {select}; it holds: {listed}")
    else:  # signatures and the like come with what they are of, and have no name to be asked for by
        images = [image for image in images if image.names or not image.attached] or images
    if name is not None and len(images) > 1:
        raise CommandError(
            f"{files.where} holds {len(images)} images, and --as names one: {listed}", "add --select NAME"
        )
    faulty = [image for image in images if image.fault]
    if faulty:
        raise CommandError(
            f"{clean(faulty[0].label)} cannot be imported: {clean(faulty[0].fault)}",
            "the others can: --select NAME" if len(faulty) < len(images) else "",
        )
    if name is not None and name.digest not in (None, images[0].digest):
        raise CommandError(f"{clean(images[0].label)} has the digest {images[0].digest}, not that of {name}")
    unnamed = [image for image in images if name is None and not image.names]
    if unnamed:
        raise CommandError(
            f"{files.where} does not tell the full name of {clean(unnamed[0].label)}", "add --as REF"
        )
    return [(image, (name,) if name is not None else image.names) for image in images]


def _is_reference(text: str) -> bool:
    try:
        Reference.parse(text)
    except InvalidInputError:
        return False
    return True


def _is_called(image: ArchivedImage, select: str, wanted: str) -> bool:
    return select in (image.label, str(image.digest)) or wanted in map(str, image.names)


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends images to the agent: what it lacks of their blobs, then their names."""

    client: AdminClient
    headers: dict[str, str]
    show: Show

    def send(self, image: ArchivedImage, names: Iterable[Reference]) -> dict[str, Any]:
        """One image; the row to print. Raises CommandError."""
        sent, answers = 0, list[dict[str, Any]]()
        for name in names:
            missing = self._missing(name, [blob.digest for blob in image.blobs])
            for blob in image.blobs:
                if blob.digest in missing:
                    self._upload(name, blob)
                    sent += blob.size
                else:
                    self.show.layer(blob.digest.short, blob.size, blob.size, "store")
            body = {"reference": str(name), "digest": str(image.digest)}
            answer = self.client.send("POST", "import", body, self.headers)
            answers.append(answer if isinstance(answer, dict) else {})
        left_out = [str(each) for answer in answers[:1] for each in answer.get("left_out") or ()]
        return {
            "references": [str(name) for name in names],
            "digest": str(image.digest),
            "size": image.size,
            "blobs": len(image.blobs),
            "sent": sent,
            "left_out": left_out,
            "manifest_made": image.built,
        }

    def _missing(self, name: Reference, digests: list[Digest]) -> set[Digest]:
        found: set[Digest] = set()
        for start in range(0, len(digests), _ASKED_AT_ONCE):
            asked = digests[start : start + _ASKED_AT_ONCE]
            body = {"reference": str(name), "digests": [str(digest) for digest in asked]}
            answer = self.client.send("POST", "import/missing", body, self.headers)
            texts = answer.get("missing") if isinstance(answer, dict) else None
            if not isinstance(texts, list):
                raise CommandError("the agent does not say what it lacks: it may be of another version")
            found |= {digest for digest in asked if str(digest) in texts}
        return found

    def _upload(self, name: Reference, blob: ArchivedBlob) -> None:
        path = f"import/blobs/{blob.digest}?reference={quote(str(name), safe='')}"
        self.client.upload(path, blob.size, self._progress(blob), self.headers)

    def _progress(self, blob: ArchivedBlob) -> Iterator[bytes]:
        sent = 0
        for chunk in blob.read():
            self.show.layer(blob.digest.short, blob.size, sent, "")
            yield chunk
            sent += len(chunk)
        self.show.layer(blob.digest.short, blob.size, sent, "")


def _tell(row: dict[str, Any]) -> None:
    click.echo(f"imported {', '.join(row['references'])}@{row['digest']}, {human_bytes(row['size'])}")
    if row["manifest_made"]:
        click.echo("  its manifest was made here: a registry has the same image under another digest")
    if row["left_out"]:
        click.echo(
            f"  not in the archive, so fetched from upstream when asked for: {', '.join(map(clean, row['left_out']))}"
        )
