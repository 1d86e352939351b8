"""Builds of the user module that differ from the shipped one: good, bad for some users, bad for all.

Which users a build is bad for goes by their names: `trap...`, `hang...` and `rot...` (its state is corrupt
after the hook, which the health query finds).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cannery.cdk.build import BuiltModule
from cannery.cli.app_install import APPS_FOLDER
from cannery.cli.building import build_source
from cannery.node.source_files import read_source

_HOOKS = '''
    @post_upgrade
    def check_in(self, ctx: Context) -> None:
        """Do to some users what a bad version does."""
        name = {name}
        if {is_trap}:
            ctx.trap("the old letters cannot be read")
        if name.startswith("hang"):
            while True:
                pass
        if name.startswith("rot"):
            self.me.set(UNOWNED)

    @health
    def is_well(self, ctx: Context) -> bool:
        """Say whether the mailbox still has its owner."""
        return self.me.get() != UNOWNED

    @query
    def build(self, ctx: Context) -> str:
        """Say which build this is."""
        return "{label}"
'''
_MARKER = "    def _sweep(self"
_IMPORT = "    continuation,\n"


def build_user(
    label: str, *, name: str = "self.me.get().username", traps: str = 'name.startswith("trap")'
) -> BuiltModule:
    """Build the user module with hooks; `traps` is the condition under which one traps."""
    with tempfile.TemporaryDirectory() as folder:
        users = Path(folder) / "users"
        shutil.copytree(APPS_FOLDER / "users", users)
        path = users / "user.py"
        source = path.read_text()
        assert source.count(_MARKER) == 1
        assert source.count(_IMPORT) == 1
        hooks = _HOOKS.format(label=label, name=name, is_trap=traps).lstrip("\n")
        source = source.replace(_MARKER, f"{hooks}\n{_MARKER}")
        path.write_text(source.replace(_IMPORT, f"{_IMPORT}    health,\n    post_upgrade,\n"))
        return build_source(read_source(str(path)))


def build_good(label: str) -> BuiltModule:
    """Build a version whose hooks do no harm."""
    return build_user(label, name='"nobody"')


def build_bad_for_all(label: str) -> BuiltModule:
    """Build a version that no user survives."""
    return build_user(label, traps="True")
