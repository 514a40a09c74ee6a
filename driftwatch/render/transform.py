"""Transforms a file's text before parsing: decryption, variable substitution, and mapping of a tool's output.

All steps run in memory each time a file is read, so no decrypted value is ever on disk. Line numbers in the
transformed text are mapped back to lines of the file in the repository.
"""

import hashlib
import re
import secrets
from bisect import bisect_right
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from driftwatch.git.errors import RenderError
from driftwatch.manifests import parse, yaml_documents
from driftwatch.manifests.parse import Parsed
from driftwatch.model import SUBSTITUTE, InvalidManifest, Manifest
from driftwatch.render import output
from driftwatch.render.sandbox import Sandbox
from driftwatch.render.sops import CODE, ENCRYPTED, Sops
from driftwatch.render.substitution import SubstitutionError, substitute
from driftwatch.source_spec import ClusterCapabilities, SourceSpec

OPT_OUT = (SUBSTITUTE, "kustomize.toolkit.fluxcd.io/substitute")
_OPT_OUT = re.compile(r"(?:driftwatch\.io|kustomize\.toolkit\.fluxcd\.io)/substitute['\"]?\s*:\s*['\"]?disabled")
_LINE = re.compile(rf"^{re.escape(output.LINE)}(\d+)$", re.MULTILINE)
_CONTENT = re.compile(r"^(?!---|[ \t]*#|[ \t]*\r?$)", re.MULTILINE)
_BY_HELM = f"{output.HEADER}helm\n".encode()
_HOOK = b'"helm.sh/hook":'
_TESTS = frozenset({"test", "test-success", "test-failure"})
_INSTALLS = frozenset({"pre-install", "post-install", "pre-upgrade", "post-upgrade"})


class Part(NamedTuple):
    """A stretch of text, its first line in the file, and whether its lines correspond one to one to the file's."""

    text: str
    line: int
    exact: bool

    @property
    def first_line(self) -> int:
        """The line at which its document begins, after separator and comments."""
        content = _CONTENT.search(self.text) if self.exact else None
        return self.line + (self.text.count("\n", 0, content.start()) if content else 0)


class Transform:
    """Reads and transforms the files of one source."""

    def __init__(self, spec: SourceSpec) -> None:
        self.surroundings = ClusterCapabilities()
        self._spec = spec
        self._sandbox = Sandbox(spec.render.limits)
        folder = Path(spec.mirror).with_name(f"{spec.name}.decrypting")
        self._sops = Sops(spec.render.sops, self._sandbox, folder, network=spec.render.network)

    def interrupt(self) -> None:
        """Stop the running tool."""
        self._sandbox.interrupt()

    def state(self) -> str:
        """A version of variables and keys; files that depend on them are read again when it changes."""
        about = (sorted(self.variables().items()), self._sops.state())
        return hashlib.blake2b(msgspec.json.encode(about), digest_size=16).hexdigest()

    def depends(self, data: bytes) -> bool:
        """Whether a file's manifests depend on more than its text."""
        return self._is_encrypted(data) or self._has_variables(data)

    def variables(self) -> dict[str, str]:
        """The source's variables. Those of the configuration override those of the cluster."""
        return {**self.surroundings.variables.get(self._spec.name, {}), **self._spec.render.variables}

    def read(self, path: str, data: bytes, *, rendered: bool, known: bool) -> Parsed:
        """Read the manifests of one file, as `parse.read_file` does."""
        rendered = rendered and data.startswith(output.HEADER.encode())
        # Objects of a chart without a namespace go to the release's namespace.
        release = self._spec.render.helm.namespace if rendered and data.startswith(_BY_HELM) else ""
        place = (self._spec.name, release or self._spec.namespace)
        if not (rendered or self.depends(data)):
            return parse.read_file(path, data, *place, known=known)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return parse.read_file(path, data, *place, known=known)
        parts = _parts(text, rendered=rendered)
        undefined = _Undefined()
        failed: list[InvalidManifest] = []
        ready = []
        for part in self._decrypted(path, parts, failed, rendered=rendered):
            if self._spec.render.substitutes:
                ready += self._substituted(path, part, undefined, failed)
            else:
                ready.append(part)
        made = "".join(part.text for part in ready).encode()
        parsed = parse.read_file(path, made, *place, known=known)
        parsed = undefined.reject(_Lines(ready).translate(parsed))
        if rendered:
            parsed = self._without_hooks(parsed)
        return parsed._replace(invalid=[*parsed.invalid, *failed])

    def _is_encrypted(self, data: bytes) -> bool:
        return b"sops" in data and ENCRYPTED.search(data.decode("utf-8", "replace")) is not None

    def _has_variables(self, data: bytes) -> bool:
        return self._spec.render.substitutes and b"${" in data

    def _decrypted(self, path: str, parts: list[Part], failed: list[InvalidManifest], *, rendered: bool) -> list[Part]:
        """Decrypt the encrypted documents. Those that sops encrypted together, as one file, are decrypted together."""
        made = []
        for code, group in groupby(parts, key=_code):
            together = list(group)
            if not code:
                made += together
                continue
            runs = [[part] for part in together] if rendered else [together]
            for run in runs:
                text = _LINE.sub("", "".join(part.text for part in run)).removeprefix("---")
                try:
                    plain = self._sops.decrypt(text, check=not rendered)
                except RenderError as error:
                    failed.append(InvalidManifest(path, run[0].first_line, str(error)))
                    continue
                found = output.SEPARATOR.split(plain)
                lines = [part.first_line for part in run] if len(found) == len(run) else [run[0].line] * len(found)
                made += [
                    Part(f"---\n{one.strip()}\n", line, exact=False) for one, line in zip(found, lines, strict=True)
                ]
        return made

    def _substituted(self, path: str, part: Part, undefined: "_Undefined", failed: list[InvalidManifest]) -> list[Part]:
        if "${" not in part.text or _opts_out(part.text):
            return [part]

        def line(position: int) -> int:
            return part.line + part.text.count("\n", 0, position) if part.exact else part.line

        try:
            text = substitute(
                part.text, self.variables(), lambda name, position: undefined.placeholder(name, line(position))
            )
        except SubstitutionError as error:
            failed.append(InvalidManifest(path, line(error.position), error.reason))
            return []
        return [part._replace(text=text)]

    def _without_hooks(self, parsed: Parsed) -> Parsed:
        kept, passed_over = [], list(parsed.passed_over)
        for manifest in parsed.manifests:
            hooks = _hooks(manifest)
            if hooks and not (self._spec.render.helm.include_hooks and hooks & _INSTALLS and not hooks & _TESTS):
                reason = (
                    f"{manifest.kind} {manifest.name} is a Helm hook ({', '.join(sorted(hooks))}), no desired state"
                )
                passed_over.append(InvalidManifest(manifest.file, manifest.line, reason))
            else:
                kept.append(manifest)
        return Parsed(kept, parsed.invalid, passed_over)


class _Undefined:
    """Undefined variables. Each leaves a marker in the text, because one in a comment is not an error."""

    def __init__(self) -> None:
        self._mark = f"DRIFTWATCH_UNDEFINED_{secrets.token_hex(8)}"
        self._names: list[tuple[str, int]] = []

    def placeholder(self, name: str, line: int) -> str:
        """The marker that replaces the variable until the document is parsed."""
        self._names.append((name, line))
        return f"{self._mark}_{len(self._names) - 1}_"

    def reject(self, parsed: Parsed) -> Parsed:
        """The result with manifests that use an undefined variable moved to the invalid ones."""
        if not self._names:
            return parsed
        kept = []
        invalid = list(parsed.invalid)
        for manifest in parsed.manifests:
            found = re.search(rb"%s_(\d+)_" % self._mark.encode(), manifest.body)
            if found is None:
                kept.append(manifest)
                continue
            name, line = self._names[int(found[1])]
            reason = f"the variable {name} is not defined: name it in vars or varsFrom, or write ${{{name}:-default}}"
            invalid.append(InvalidManifest(manifest.file, line, reason))
        return Parsed(kept, [_unmarked(one, self._mark) for one in invalid], parsed.passed_over)


class _Lines:
    """Maps lines of the transformed text to lines of the file."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self._starts = []
        line = 1
        for part in parts:
            self._starts.append(line)
            line += part.text.count("\n")

    def translate(self, parsed: Parsed) -> Parsed:
        """The same result with lines of the file."""
        return Parsed(
            [msgspec.structs.replace(one, line=self._of(one.line)[0]) for one in parsed.manifests],
            [self._invalid(one) for one in parsed.invalid],
            [InvalidManifest(one.file, self._of(one.line)[0], one.reason) for one in parsed.passed_over],
        )

    def _of(self, line: int) -> tuple[int, int]:
        """Line in the file, and the line within the part if the part's lines are not the file's (else 0)."""
        number = max(0, bisect_right(self._starts, line) - 1)
        part, offset = self._parts[number], line - self._starts[number]
        return (part.line + offset, 0) if part.exact else (part.line, offset)

    def _invalid(self, one: InvalidManifest) -> InvalidManifest:
        line, within = self._of(one.line)
        where = f" (line {within} of what is made of it)" if within > 1 else ""
        return InvalidManifest(one.file, line, one.reason + where)


def _parts(text: str, *, rendered: bool) -> list[Part]:
    starts = [0, *(match.start() for match in output.SEPARATOR.finditer(text)), len(text)]
    parts = []
    line = 1
    for start, end in pairwise(starts):
        part = text[start:end]
        marked = _LINE.search(part) if rendered else None
        if marked:
            parts.append(Part(part, int(marked[1]), exact=False))
        elif part:
            parts.append(Part(part, line, exact=True))
        line += part.count("\n")
    return parts


def _code(part: Part) -> str:
    """The authentication code of a document, shared by documents encrypted together; "" if it is not encrypted."""
    if not ENCRYPTED.search(part.text):
        return ""
    code = CODE.search(part.text)
    return code[1] if code else "none"


def _opts_out(text: str) -> bool:
    """Whether a label or annotation of the document disables substitution."""
    if not _OPT_OUT.search(text):
        return False
    for item in yaml_documents.read(text.encode()):
        if isinstance(item, yaml_documents.Document) and isinstance(item.value, dict):
            metadata = item.value.get("metadata")
            for field in ("labels", "annotations"):
                values = metadata.get(field) if isinstance(metadata, dict) else None
                if isinstance(values, dict) and any(values.get(name) == "disabled" for name in OPT_OUT):
                    return True
    return False


def _hooks(manifest: Manifest) -> set[str]:
    if _HOOK not in manifest.body:
        return set()
    value = msgspec.json.decode(manifest.body)["metadata"]["annotations"].get("helm.sh/hook", "")
    return {one.strip() for one in value.split(",") if one.strip()}


def _unmarked(one: InvalidManifest, mark: str) -> InvalidManifest:
    return InvalidManifest(one.file, one.line, re.sub(rf"{mark}_\d+_", "an undefined variable", one.reason))
