"""Build a module out of sources: static checks, then description, interface text, manifest and archive.

The same sources give the same bytes. Loading the sources is the caller's part (`node.python_runtime` does it
under a private package); nothing here executes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from cannery import limits
from cannery.candid.errors import CandidError
from cannery.cdk.archive import ArchiveError, build_archive
from cannery.cdk.checks import Finding, check_sources
from cannery.cdk.declare import Canister
from cannery.cdk.describe import describe
from cannery.cdk.hints import DeclarationError
from cannery.cdk.interface import did_of, manifest_of
from cannery.cdk.module_file import ModuleError, ModuleFile, module_hash, parse_module
from cannery.errors import CanneryError

Load = Callable[[Mapping[str, bytes], str], type[Canister]]


class BuildError(CanneryError):
    """Sources cannot become a module. `findings` are the places that the static checks refuse."""

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        lines = [message, *(str(finding) for finding in findings)]
        super().__init__("\n".join(lines))
        self.findings = findings


@dataclass(frozen=True, slots=True)
class BuiltModule:
    """A module's bytes, its interface text and its hash."""

    module: bytes
    did: str
    hash: bytes


def build_module(
    sources: Mapping[str, bytes], entry: str, load: Load, third_party: Collection[str] = frozenset()
) -> BuiltModule:
    """Build the module of the class at `entry` (`module:Class`); raise BuildError.

    `sources` are files by archive path; `third_party` the top-level packages that the node's configuration
    allows.
    """
    findings = check_sources(sources, third_party)
    if findings:
        raise BuildError("the sources use what canister code cannot have:", findings)
    try:
        description = describe(load(sources, entry))
        did = did_of(description)
        module = ModuleFile(did, manifest_of(description, entry), build_archive(sources)).encode()
        parse_module(module)
    except (DeclarationError, CandidError, ArchiveError, ModuleError) as error:
        raise BuildError(str(error)) from error
    if len(module) > limits.MODULE_SIZE_BYTES_MAX:
        raise BuildError(f"the module has {len(module)} bytes, more than {limits.MODULE_SIZE_BYTES_MAX}")
    return BuiltModule(module, did, module_hash(module))
